// Go 1.19 or later, standard library: go run examples/go_client.go 127.0.0.1:8080 shoe.png
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

type answer struct {
	Classes []struct {
		Label       string  `json:"label"`
		Probability float64 `json:"probability"`
	} `json:"classes"`
	Source string  `json:"source"`
	TotalS float64 `json:"total_s"`
	Error  string  `json:"error"`
}

func main() {
	file, err := os.Open(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Post("http://"+os.Args[1]+"/v1/predict?top_k=3", "application/octet-stream", file)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	var told answer
	if err := json.NewDecoder(response.Body).Decode(&told); err != nil {
		log.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		log.Fatalf("no answer: %d: %s", response.StatusCode, told.Error)
	}
	fmt.Printf("%s from %s in %.1f ms\n", told.Classes[0].Label, told.Source, 1000*told.TotalS)
}
