// Writes kstatus.json: what kstatus, by which Flux, kpt and others judge objects, makes of jobs (tests/unit/test_gitops.py).
// Objects by name come in, statuses by name go out. In a folder of its own, with this file (Go is no dependency of the tests):
//
//	go mod init kstatus && go get sigs.k8s.io/cli-utils@5895ad6c17dd
//	PYTHONPATH=operator:jobs:tests:. python tests/healths.py | go run kstatus.go >tests/data/kstatus.json
package main

import (
	"encoding/json"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func main() {
	documents := map[string]json.RawMessage{}
	check(json.NewDecoder(os.Stdin).Decode(&documents))
	found := map[string]string{}
	for name, document := range documents {
		object := &unstructured.Unstructured{}
		check(object.UnmarshalJSON(document)) // as Kubernetes does: whole numbers are int64
		result, err := status.Compute(object)
		check(err)
		found[name] = result.Status.String()
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", "  ")
	check(encoder.Encode(found))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
