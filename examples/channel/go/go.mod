module cache

go 1.23
