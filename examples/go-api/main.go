// Command go-api counts its visits in a file and streams its answer: the count at once, then a line every 100 ms.
//
//	GOOS=wasip1 GOARCH=wasm go build -o ../functions/go-api.wasm .
//	cp go-api.toml ../functions/    # its settings: name your directory
//	wasmbox serve --preopen-root /srv/data
//	curl -N localhost:8095/go-api
//
// Unlike the other examples of this kind it asks no other server: README.md says why.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

const counter = "/data/go-api"

func main() {
	visit, err := count()
	if err != nil {
		fmt.Fprintln(os.Stderr, "counting:", err)
		os.Exit(1)
	}
	// What is written goes out when the function waits.
	fmt.Printf("visit %d\n", visit)
	for _, word := range []string{"one", "two", "three"} {
		time.Sleep(100 * time.Millisecond)
		fmt.Println(word)
	}
}

// count counts. Two calls at the same time may count as one: files have no locks in WASI.
func count() (int, error) {
	text, err := os.ReadFile(counter)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	// A file that is not there yet is empty.
	visit, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	visit++
	return visit, os.WriteFile(counter, []byte(strconv.Itoa(visit)+"\n"), 0o644)
}
