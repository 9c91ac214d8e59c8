module example/go-wordcount

go 1.21
