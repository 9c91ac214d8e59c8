//! Requests to others that a guest sends, of either WASI, as the query says: `METHOD,SCHEME://AUTHORITY/PATH,OPTION,OPTION...`.
//!
//! Options: `connect=MS`, `first=MS`, `between=MS` (timeouts); `header=NAME:VALUE`; `body=BYTES`; `trailer=NAME:VALUE`; `times=N` (one after the
//! other); `together=N` (all at once); `keep` (responses are not read, and are held until all have come); `pause=MS` (between one and the next).

#[derive(Default)]
pub struct Wanted<'a> {
    pub method: &'a str,
    pub url: &'a str,
    pub timeouts: [Option<u64>; 3],
    pub headers: Vec<(&'a str, &'a str)>,
    pub body: Option<usize>,
    pub trailers: Vec<(&'a str, &'a str)>,
    pub times: usize,
    pub together: usize,
    pub keep: bool,
    pub pause: u64,
}

impl Wanted<'_> {
    /// Scheme, authority, and path with query.
    pub fn target(&self) -> (&str, &str, &str) {
        let (scheme, rest) = self.url.split_once("://").expect("a scheme");
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        (scheme, authority, if path.is_empty() { "/" } else { path })
    }
}

pub fn parse(query: &str) -> Wanted<'_> {
    let mut words = query.split(',');
    let mut wanted = Wanted {
        method: words.next().expect("a method"),
        url: words.next().expect("a URL"),
        times: 1,
        together: 1,
        ..Wanted::default()
    };
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let number = || value.parse::<u64>().expect("a number");
        let field = || value.split_once(':').expect("NAME:VALUE");
        match key {
            "connect" => wanted.timeouts[0] = Some(number()),
            "first" => wanted.timeouts[1] = Some(number()),
            "between" => wanted.timeouts[2] = Some(number()),
            "header" => wanted.headers.push(field()),
            "trailer" => wanted.trailers.push(field()),
            "body" => wanted.body = Some(number() as usize),
            "times" => wanted.times = number() as usize,
            "together" => wanted.together = number() as usize,
            "keep" => wanted.keep = true,
            "pause" => wanted.pause = number(),
            other => panic!("no such option: {other}"),
        }
    }
    wanted
}
