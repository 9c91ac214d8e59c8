//! Receives a CloudEvent and answers with another one, which says how much data came.
//!
//!     cargo build --release --target wasm32-wasip1 -p cloudevents
//!     curl localhost:8095/cloudevents -H 'Ce-Specversion: 1.0' -H 'Ce-Id: 1' -H 'Ce-Source: /shop' \
//!         -H 'Ce-Type: com.example.order' -H 'Content-Type: application/json' -d '{"total": 12}'
//!
//! In binary mode the attributes are headers, which a command finds in its environment: `Ce-Type` is
//! `HTTP_CE_TYPE`. In structured mode the body is a JSON document with attributes and data.
//! functions/cloudevents.toml sets `output = "cgi"`, so that the answer has headers of its own.

use std::env;
use std::error::Error;
use std::io::{self, Read};

use serde_json::Value;

struct Event {
    id: String,
    source: String,
    kind: String,
    data: Vec<u8>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut body = Vec::new();
    io::stdin().read_to_end(&mut body)?;
    let content_type = env::var("CONTENT_TYPE").unwrap_or_default();
    let event = if content_type.starts_with("application/cloudevents+json") {
        structured(&body)
    } else {
        binary(body)
    };
    match event {
        Ok(event) => answer(&event),
        // The sender's mistake, so it should not send that again.
        Err(reason) => print!("Status: 400 Bad Request\nContent-Type: text/plain\n\n{reason}\n"),
    }
    Ok(())
}

/// Attributes in headers, the data is the body.
fn binary(data: Vec<u8>) -> Result<Event, String> {
    let attribute = |name: &str| {
        let variable = format!("HTTP_CE_{}", name.to_uppercase());
        env::var(variable).map_err(|_| format!("no header Ce-{name}"))
    };
    version(&attribute("Specversion")?)?;
    Ok(Event {
        id: attribute("Id")?,
        source: attribute("Source")?,
        kind: attribute("Type")?,
        data,
    })
}

/// One JSON document. The data is JSON (`data`) or base64 (`data_base64`).
fn structured(body: &[u8]) -> Result<Event, String> {
    let document: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let attribute = |name: &str| match document.get(name).and_then(Value::as_str) {
        Some(value) => Ok(value.to_owned()),
        None => Err(format!("no attribute {name}")),
    };
    version(&attribute("specversion")?)?;
    let data = match (document.get("data"), document.get("data_base64")) {
        (Some(Value::String(text)), _) => text.clone().into_bytes(),
        (Some(data), _) => data.to_string().into_bytes(),
        (None, Some(_)) => return Err("this example reads no data_base64".into()),
        (None, None) => Vec::new(),
    };
    Ok(Event {
        id: attribute("id")?,
        source: attribute("source")?,
        kind: attribute("type")?,
        data,
    })
}

fn version(text: &str) -> Result<(), String> {
    match text {
        "1.0" => Ok(()),
        other => Err(format!("specversion is {other:?}; expected 1.0")),
    }
}

/// An event in binary mode. A broker of Knative passes it on; other senders see its headers.
fn answer(event: &Event) {
    println!("Ce-Specversion: 1.0");
    println!("Ce-Id: answer-to-{}", printable(&event.id));
    println!("Ce-Source: /functions/cloudevents");
    println!("Ce-Type: {}.received", printable(&event.kind));
    println!("Content-Type: application/json");
    println!();
    let told = serde_json::json!({ "source": event.source, "bytes": event.data.len() });
    println!("{told}");
}

/// For a header: an attribute of a structured event may hold line ends.
fn printable(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).collect()
}
