/* Answers with the request body in upper case.
 *
 *     clang --target=wasm32-wasi -O2 -Wl,--strip-all -o upper.wasm upper.c
 *     curl localhost:8095/c-upper -d 'some text'
 *
 * With the WASI SDK, use its clang. On Debian and Ubuntu:
 * apt install clang lld wasi-libc libclang-rt-dev-wasm32
 */
#include <ctype.h>
#include <stdio.h>

int main(void) {
  static char buffer[64 * 1024];
  size_t length;

  while ((length = fread(buffer, 1, sizeof buffer, stdin)) > 0) {
    for (size_t i = 0; i < length; i++)
      buffer[i] = (char)toupper((unsigned char)buffer[i]);
    if (fwrite(buffer, 1, length, stdout) != length)
      break;
  }

  if (ferror(stdin) || ferror(stdout) || fflush(stdout) != 0) {
    perror("upper");
    return 1;
  }
  return 0;
}
