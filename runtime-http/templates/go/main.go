// Command {{name}} greets its first argument, or the world, and says how much came in the request's body.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	name := "world"
	if len(os.Args) > 1 {
		name = os.Args[1]
	}
	bytes, err := io.Copy(io.Discard, os.Stdin)
	if err != nil {
		// Standard error is in the log, and the end of it in the error of a call that failed.
		fmt.Fprintln(os.Stderr, "reading the body:", err)
		os.Exit(1)
	}
	// Standard output is the answer.
	fmt.Printf("Hello, %s! You sent %d bytes.\n", name, bytes)
}
