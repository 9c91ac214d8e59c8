//! A component that keeps values. The last word of the path says what it does, and the query with what, in words with commas between.

use std::fmt::Write;

use wasip2::{
    exports::http::incoming_handler::Guest,
    http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam},
};

use self::bindings::wasi::keyvalue::{
    atomics, batch,
    store::{self, Bucket, Error},
};

mod bindings {
    wit_bindgen::generate!({ path: "../../../runtime-http/wit/keyvalue", generate_all });
}

struct Handler;

wasip2::http::proxy::export!(Handler);

impl Guest for Handler {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let words: Vec<&str> = query.split(',').collect();
        let text = act(path.rsplit('/').next().unwrap_or_default(), &words).unwrap_or_else(|error| match error {
            Error::NoSuchStore => "error=no-such-store".into(),
            Error::AccessDenied => "error=access-denied".into(),
            Error::Other(reason) => format!("error={reason}"),
        });
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("the first use");
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().expect("the first use");
        text.as_bytes().chunks(4096).for_each(|piece| drop(stream.blocking_write_and_flush(piece)));
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}

fn number(word: &str) -> usize {
    word.parse().expect("a number")
}

fn shown(value: Option<Vec<u8>>) -> String {
    match value {
        None => "none".into(),
        Some(value) if value.len() <= 100 => format!("{:?}", String::from_utf8_lossy(&value)),
        Some(value) => format!("{} bytes", value.len()),
    }
}

fn act(what: &str, words: &[&str]) -> Result<String, Error> {
    if what == "open" {
        return store::open(words[0]).map(|_| "opened".into());
    }
    let bucket: Bucket = store::open("default")?;
    Ok(match what {
        "get" => shown(bucket.get(words[0])?),
        "set" => {
            bucket.set(words[0], words[1].as_bytes())?;
            "set".into()
        }
        // `KEY,BYTES`
        "fill" => {
            bucket.set(words[0], &vec![b'x'; number(words[1])])?;
            "filled".into()
        }
        // `COUNT,BYTES`: until it fails.
        "fill-many" => {
            let value = vec![b'x'; number(words[1])];
            for count in 0..number(words[0]) {
                if let Err(Error::Other(reason)) = bucket.set(&format!("many-{count:08}"), &value) {
                    return Ok(format!("{count} filled, then {reason}"));
                }
            }
            "all filled".into()
        }
        "delete" => {
            bucket.delete(words[0])?;
            "deleted".into()
        }
        "exists" => bucket.exists(words[0])?.to_string(),
        "increment" => {
            let delta = words[1].parse().expect("a number");
            atomics::increment(&bucket, words[0], delta)?.to_string()
        }
        // All pages: how many, and the keys.
        "list" => {
            let (mut pages, mut keys, mut cursor) = (0, Vec::new(), None);
            loop {
                let page = bucket.list_keys(cursor)?;
                pages += 1;
                keys.extend(page.keys);
                cursor = page.cursor;
                if cursor.is_none() {
                    break;
                }
            }
            let mut text = format!("{pages} pages, {} keys", keys.len());
            keys.iter().take(20).for_each(|key| write!(text, " {key}").expect("a string"));
            text
        }
        "cursor" => {
            let cursor = words[0].parse().expect("a cursor");
            format!("{} keys", bucket.list_keys(Some(cursor))?.keys.len())
        }
        // `KEY=VALUE,...`
        "set-many" => {
            let pairs: Vec<_> = words.iter().filter_map(|word| word.split_once('=')).collect();
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.to_string(), value.as_bytes().to_vec())).collect();
            batch::set_many(&bucket, &pairs)?;
            "set".into()
        }
        // `COUNT,BYTES` in one call.
        "set-many-of" => {
            let value = vec![b'x'; number(words[1])];
            let pairs: Vec<_> =
                (0..number(words[0])).map(|number| (format!("of-{number:06}"), value.clone())).collect();
            batch::set_many(&bucket, &pairs)?;
            "set".into()
        }
        "get-many" => {
            let keys: Vec<String> = words.iter().map(|word| word.to_string()).collect();
            let values = batch::get_many(&bucket, &keys)?;
            let shown = values.into_iter().map(|pair| match pair {
                Some((key, value)) => format!("{key}={}", shown(Some(value))),
                None => "none".into(),
            });
            shown.collect::<Vec<_>>().join(" ")
        }
        // The same key, `COUNT` times in one call.
        "get-many-of" => {
            let keys = vec![words[0].to_owned(); number(words[1])];
            format!("{} values", batch::get_many(&bucket, &keys)?.len())
        }
        "delete-many" => {
            let keys: Vec<String> = words.iter().map(|word| word.to_string()).collect();
            batch::delete_many(&bucket, &keys)?;
            "deleted".into()
        }
        other => panic!("{other}?"),
    })
}
