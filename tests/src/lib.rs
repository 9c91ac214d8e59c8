//! The end-to-end tests' harness: real servers in directories of their own, clients, and guests to serve.
//!
//! It knows the server only from outside: its command line, its sockets, its log, `/proc`. The tests are in `tests/`, a file
//! for each noun, or a directory. They need the server (`cargo build --release -p wasmbox`; the environment variable `WASMBOX_BIN` names
//! another binary), the built examples (`make -C examples`), and Debian's packages `prometheus` for `promtool`, and `openssl`.
//!
//! - [`server`]: [`WasmBox`], a running server that leaves nothing behind
//! - [`client`]: whole requests and answers; [`wire`]: single bytes of HTTP/1.1; [`strict`]: answers as the standard says
//! - [`guest`]: commands as text; [`binary`]: modules as bytes; [`component`]: the wasi:http guest of `guests/`
//! - [`attack`]: a box in a small container while somebody harms it, its [`victim`], and what an [`attacker`] gets; [`frames`]: single frames of
//!   HTTP/2
//! - [`cgroup`]: cgroups of a test's own, to start servers in
//! - [`metrics`], [`process`]: what a server says of itself, and what the kernel says of it; [`compiler`]: the process that compiles
//! - [`languages`]: what functions take in each language of `wasmbox new`; [`toolchains`]: and from others
//! - [`project`]: a developer's project, and `wasmbox dev` in it; [`document`]: the commands in the documentation; [`tutorial`] and [`reader`]: who
//!   does what it says, in a [`shell`]
//! - [`pty`]: a terminal, and a program in it; [`outcome`]: how a command has ended
//! - [`queue_proxy`]: what boxes report to
//! - [`redis`]: a real Redis or Valkey; [`registry`]: registries of images, a real one and those that lie, with [`signatures`]
//! - [`api_server`]: a Kubernetes API server that forwards ports
//! - [`collector`]: whom boxes send their traces to
//! - [`upstream`]: whom functions send requests to, with [`certificates`] and [`names`] of its own
//! - [`vm`]: a virtual machine with cgroup v2
//! - [`containerd`]: a real one with the shim under test, on a [`node`] of namespaces; [`image`]: what it runs; [`cri`]: pods, and
//!   [`streaming`] from them; [`task`]: the shim itself, without containerd
//! - [`workspace`]: where things are; [`temporary`]: directories; [`patience`]: waiting

pub mod api_server;
pub mod attack;
pub mod attacker;
pub mod binary;
pub mod certificates;
pub mod cgroup;
pub mod client;
pub mod collector;
pub mod compiler;
pub mod component;
pub mod containerd;
pub mod cri;
pub mod document;
pub mod frames;
pub mod guest;
pub mod image;
pub mod languages;
pub mod metrics;
pub mod names;
pub mod node;
pub mod outcome;
pub mod patience;
pub mod process;
pub mod project;
pub mod pty;
pub mod queue_proxy;
pub mod reader;
pub mod redis;
pub mod registry;
pub mod server;
pub mod shell;
pub mod signatures;
pub mod streaming;
pub mod strict;
pub mod task;
pub mod temporary;
pub mod toolchains;
pub mod tutorial;
pub mod upstream;
pub mod victim;
pub mod vm;
pub mod wire;
pub mod workspace;

pub use api_server::ApiServer;
pub use attack::Attack;
pub use certificates::Authority;
pub use cgroup::TestCgroup;
pub use client::{Answer, Problem};
pub use collector::Collector;
pub use containerd::{Containerd, Version};
pub use cri::{ContainerConfig, Cri};
pub use http::Request;
pub use image::Image;
pub use names::Names;
pub use patience::eventually;
pub use pty::Pty;
pub use reader::Reader;
pub use redis::RedisServer;
pub use server::WasmBox;
pub use upstream::Upstream;
pub use wire::Wire;
