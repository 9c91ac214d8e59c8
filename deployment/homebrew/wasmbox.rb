# A formula for Homebrew on Linux. formula.sh fills in VERSION and SHA256.
class Wasmbox < Formula
  desc "Server for WebAssembly functions, each invocation sandboxed and limited"
  homepage "https://github.com/wasmbox/wasmbox"
  url "https://github.com/wasmbox/wasmbox/archive/refs/tags/vVERSION.tar.gz"
  sha256 "SHA256"
  license "Apache-2.0"

  depends_on "rust" => :build
  depends_on :linux

  def install
    system "cargo", "install", *std_cargo_args(path: "runtime-http")
    system bin/"wasmbox", "man", man1
    generate_completions_from_executable(bin/"wasmbox", "completions")
  end

  def post_install
    (var/"wasmbox/functions").mkpath
  end

  service do
    run [opt_bin/"wasmbox", "serve", "--functions-dir", var/"wasmbox/functions"]
    keep_alive true
  end

  test do
    (testpath/"hello.wat").write <<~WAT
      (module (memory (export "memory") 1) (func (export "_start")))
    WAT
    system bin/"wasmbox", "run", "hello.wat"
    assert_match version.to_s, shell_output("#{bin}/wasmbox --version")
  end
end
