"""What people see of a run: a page with charts, and the words and numbers that terminals share with it."""
