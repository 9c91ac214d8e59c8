/* Greets its first argument, or the world, and says how much came in the request's body. */
#include <stdio.h>

int main(int argc, char **argv) {
  static char buffer[64 * 1024];
  size_t bytes = 0, length;

  while ((length = fread(buffer, 1, sizeof buffer, stdin)) > 0)
    bytes += length;
  if (ferror(stdin)) {
    /* Standard error is in the log, and the end of it in the error of a call that failed. */
    perror("reading the body");
    return 1;
  }
  /* Standard output is the answer. */
  printf("Hello, %s! You sent %zu bytes.\n", argc > 1 ? argv[1] : "world", bytes);
  return fflush(stdout) == 0 ? 0 : 1;
}
