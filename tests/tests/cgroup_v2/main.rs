//! cgroup v2, in a virtual machine: builds on machines with v1, too. See `wasmbox_tests::vm`.

mod cgroup;
mod container;
mod delegation;
mod kernel;
mod limits;
mod memory;
mod shim;
mod smoke;
