//! `wasi:config` and `wasi:logging`.

use crate::interfaces::bindings::{config, logging};

pub mod bindings {
    pub mod config {
        wit_bindgen::generate!({ path: "wit/config", generate_all });
    }
    pub mod logging {
        wit_bindgen::generate!({ path: "../../runtime-http/wit/logging", generate_all });
    }
}

/// `?NAME`, or all of them.
pub fn config(query: &str) -> String {
    use config::wasi::config::store;
    match query {
        "" => {
            let mut all = store::get_all().expect("a list");
            all.sort();
            all.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
        }
        name => format!("{:?}", store::get(name).expect("an answer")),
    }
}

/// `?LEVEL,CONTEXT,MESSAGE` or `?LEVEL,CONTEXT,MESSAGE,TIMES`; `\n` in a message is a line feed.
pub fn log(query: &str) {
    use logging::wasi::logging::logging::{Level, log};
    let words: Vec<&str> = query.split(',').collect();
    let level = match words[0] {
        "trace" => Level::Trace,
        "debug" => Level::Debug,
        "info" => Level::Info,
        "warn" => Level::Warn,
        "error" => Level::Error,
        "critical" => Level::Critical,
        other => panic!("no such level: {other}"),
    };
    let times = words.get(3).map_or(1, |times| times.parse().expect("?LEVEL,CONTEXT,MESSAGE,TIMES"));
    let message = words[2].replace("\\n", "\n").replace('+', " ");
    for _ in 0..times {
        log(level, words[1], &message);
    }
}
