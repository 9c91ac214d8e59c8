//! How bytes on their way are shown, on a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar without a length yet.
pub fn bar(message: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {wide_msg} {elapsed}");
    ProgressBar::no_length().with_style(style.expect("the template is a constant")).with_message(message)
}
