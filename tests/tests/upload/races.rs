//! Several at once.

use std::thread;

use http::{Method, header};
use wasmbox_tests::guest;

use super::{ask, assert_nothing_left, etag, get, launch, put, put_patiently, request, versions};

#[test]
fn fifty_uploads_of_one_name_leave_one_of_them() {
    let server = launch().start();
    let texts: Vec<String> = (0..50).map(|number| format!("number {number}")).collect();
    thread::scope(|scope| {
        for text in &texts {
            let server = &server;
            scope.spawn(move || {
                let answer = put_patiently(server, "f", guest::printing(text, ""));
                assert!([200, 201].contains(&answer.status), "{answer:?}");
            });
        }
        // Meanwhile it is always one of them, whole.
        for _ in 0..50 {
            let answer = server.get("/f");
            assert!(answer.status == 404 || texts.contains(&answer.text().to_owned()), "{answer:?}");
        }
    });
    let text = server.get("/f").ok().text().to_owned();
    assert!(texts.contains(&text), "{text}");
    let versions = versions(&server, "f");
    assert_eq!(versions.len(), 5);
    assert_eq!((&versions[0]["version"], &versions[0]["serving"]), (&50.into(), &true.into()));
    assert_nothing_left(&server.functions(), &["f.wasm"]);
}

#[test]
fn of_those_who_have_seen_the_same_one_changes_it() {
    let server = launch().start();
    let first = etag(&put(&server, "f", guest::printing("first", "")));
    for round in 0..3 {
        let seen = etag(&get(&server, "/functions/f").ok());
        assert!(round > 0 || seen == first);
        let changed: usize = thread::scope(|scope| {
            let change = |number: usize| {
                let (server, seen) = (&server, &seen);
                scope.spawn(move || {
                    loop {
                        let request = request(Method::PUT, "/functions/f").header(header::IF_MATCH, seen);
                        let answer = ask(server, request, guest::printing(format!("{round} {number}"), ""));
                        match answer.status {
                            200 => return 1,
                            412 => {
                                answer.problem(412, "precondition-failed");
                                return 0;
                            }
                            _ => drop(answer.problem(503, "uploads-busy")),
                        }
                    }
                })
            };
            let all: Vec<_> = (0..12).map(change).collect();
            all.into_iter().map(|one| one.join().expect("an answer")).sum()
        });
        assert_eq!(changed, 1);
    }
    // And of those who find nothing, one makes it.
    let created: usize = thread::scope(|scope| {
        let create = |number: usize| {
            let server = &server;
            scope.spawn(move || {
                let request = request(Method::PUT, "/functions/new").header(header::IF_NONE_MATCH, "*");
                usize::from(ask(server, request, guest::printing(number.to_string(), "")).status == 201)
            })
        };
        let all: Vec<_> = (0..6).map(create).collect();
        all.into_iter().map(|one| one.join().expect("an answer")).sum()
    });
    assert_eq!(created, 1);
    let gone = request(Method::DELETE, "/functions/f").header(header::IF_MATCH, first);
    ask(&server, gone, "").problem(412, "precondition-failed").names(&["ETag"]);
    assert_nothing_left(&server.functions(), &["f.wasm", "new.wasm"]);
}
