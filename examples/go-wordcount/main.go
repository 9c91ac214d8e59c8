// Command go-wordcount answers with the most frequent words of the request body, a line each. Its
// argument is how many (10).
//
//	GOOS=wasip1 GOARCH=wasm go build -ldflags='-s -w' -o go-wordcount.wasm .
//	curl 'localhost:8095/go-wordcount?arg=3' --data-binary @main.go
package main

import (
	"bufio"
	"fmt"
	"os"
	"sort"
	"strconv"
	"strings"
	"unicode"
)

func main() {
	most := 10
	if len(os.Args) > 1 {
		n, err := strconv.Atoi(os.Args[1])
		if err != nil || n < 0 {
			fail(2, fmt.Errorf("argument 1: %q is not a count", os.Args[1]))
		}
		most = n
	}

	counts := map[string]int{}
	scanner := bufio.NewScanner(os.Stdin)
	scanner.Buffer(nil, 1<<20)
	scanner.Split(bufio.ScanWords)
	for scanner.Scan() {
		word := strings.TrimFunc(strings.ToLower(scanner.Text()), func(r rune) bool {
			return !unicode.IsLetter(r) && !unicode.IsNumber(r)
		})
		if word != "" {
			counts[word]++
		}
	}
	if err := scanner.Err(); err != nil {
		fail(1, err)
	}

	words := make([]string, 0, len(counts))
	for word := range counts {
		words = append(words, word)
	}
	sort.Slice(words, func(i, j int) bool {
		a, b := words[i], words[j]
		if counts[a] != counts[b] {
			return counts[a] > counts[b]
		}
		return a < b
	})

	out := bufio.NewWriter(os.Stdout)
	for _, word := range words[:min(most, len(words))] {
		fmt.Fprintf(out, "%7d %s\n", counts[word], word)
	}
	if err := out.Flush(); err != nil {
		fail(1, err)
	}
}

func fail(code int, err error) {
	fmt.Fprintln(os.Stderr, "go-wordcount:", err)
	os.Exit(code)
}
