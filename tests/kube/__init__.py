"""A Kubernetes API inside the test process, with the controllers that a job meets and a kubelet that a test plays."""
