//! For who writes functions: a new project, its build, a box of one's own to try it in, one call.
//!
//! A project is a directory with `functions` in it, which `wasmbox serve` serves as it is. What else is there makes the modules, as the table
//! `[build]` of a function's settings says. Nothing here is part of a box that serves: these commands run `wasmbox serve` as a child.
//!
//! - [`new`]: a project from one of the [`templates`]
//! - [`project`]: what is built in a project; [`build`]: building it once; [`dev`]: on each change, with [`watch`], and serving it
//! - [`local_box`]: the child that serves; [`log_line`]: what it says, for people
//! - [`invoke`]: one call, of any box; [`request`]: what is asked; [`summary`]: what it took
//! - [`steps`]: programs that are run meanwhile; [`told`]: what need not be said again; [`palette`]: colours

pub mod build;
pub mod dev;
pub mod invoke;
pub mod local_box;
pub mod log_line;
pub mod new;
pub mod palette;
pub mod project;
pub mod request;
pub mod steps;
pub mod summary;
pub mod templates;
pub mod told;
pub mod watch;
