// Greets its first argument, or the world, and says how much came in the request's body.
#include <iostream>
#include <iterator>
#include <string>

int main(int argc, char **argv) {
  const std::string name = argc > 1 ? argv[1] : "world";
  if (name == "fail") {
    std::cerr << "out of luck" << std::endl;
    return 3;
  }
  const std::string body{std::istreambuf_iterator<char>{std::cin}, {}};
  std::cout << "Hello, " << name << "! You sent " << body.size() << " bytes.\n";
}
