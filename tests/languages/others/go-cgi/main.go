// Words by their names, as a REST resource: one for each path below the function.
package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"os"
	"strings"
)

func serve(answer http.ResponseWriter, request *http.Request) {
	word := strings.Trim(strings.TrimPrefix(request.URL.Path, "/hello"), "/")
	switch request.Method {
	case http.MethodGet:
		if word == "" {
			http.NotFound(answer, request)
			return
		}
		if word == "fail" {
			fmt.Fprintln(os.Stderr, "out of luck")
			os.Exit(3)
		}
		answer.Header().Set("ETag", `"`+word+`"`)
		fmt.Fprintf(answer, "Hello, %s!\n", word)
	case http.MethodPut:
		body, err := io.ReadAll(request.Body)
		if err != nil {
			http.Error(answer, err.Error(), http.StatusBadRequest)
			return
		}
		answer.WriteHeader(http.StatusCreated)
		fmt.Fprintf(answer, "%s has %d bytes\n", word, len(body))
	case http.MethodDelete:
		answer.WriteHeader(http.StatusNoContent)
	}
}

func main() {
	if err := cgi.Serve(http.HandlerFunc(serve)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
