//! Who asks, as docker and podman have stored it: `auths`, `credHelpers` and `credsStore` of their files.
//!
//! `REGISTRY_AUTH_FILE` is the only file, if it is set. Else the first that knows the registry is heeded (containers-auth.json(5)):
//! `$XDG_RUNTIME_DIR/containers/auth.json`, or `/run/containers/UID/auth.json`; `$XDG_CONFIG_HOME/containers/auth.json`, or that of `~/.config`;
//! `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustix::process::getuid;
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    time::timeout,
};

use super::{RegistryError, reference::Reference};
use crate::excerpt::excerpt;

/// What is under this name in docker's files.
const DOCKERS: &str = "index.docker.io";
/// The name by which programs of docker's say that a secret is an identity token.
const TOKEN: &str = "<token>";
/// A program may have to ask its user.
const PATIENCE: Duration = Duration::from_secs(60);
const LONGEST_ANSWER: u64 = 64 << 10;

/// What a registry is told.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// Name and password.
    Basic(String, String),
    /// For which its server of tokens gives others.
    Identity(String),
}

/// What was found, and where it was looked for.
pub struct Credentials {
    pub login: Option<Login>,
    /// In words, for who has to find out why it is not enough.
    pub known: String,
}

/// Programs of Go's write `null` for what is empty.
#[derive(Deserialize, Default)]
struct Stored {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, Option<String>>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize, Default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "identitytoken")]
    identity: Option<String>,
}

/// By which podman's user names a file.
const NAMED: &str = "REGISTRY_AUTH_FILE";
/// Where podman has its users' files if they have no directory for what runs.
const RUN: &str = "/run/containers";

/// Files that may have credentials, of this user.
fn files(variable: impl Fn(&str) -> Option<PathBuf>, user: u32) -> Vec<PathBuf> {
    if let Some(file) = variable(NAMED) {
        return vec![file];
    }
    let home = |below: &str| variable("HOME").map(|home| home.join(below));
    let run = variable("XDG_RUNTIME_DIR").map(|directory| directory.join("containers"));
    let directories = [
        (Some(run.unwrap_or_else(|| Path::new(RUN).join(user.to_string()))), "auth.json"),
        (variable("XDG_CONFIG_HOME").or_else(|| home(".config")), "containers/auth.json"),
        (variable("DOCKER_CONFIG").or_else(|| home(".docker")), "config.json"),
    ];
    directories.into_iter().filter_map(|(directory, file)| Some(directory?.join(file))).collect()
}

/// The names under which a registry's credentials may be, the narrowest first: podman's have names of repositories, too.
fn names(reference: &Reference) -> Vec<String> {
    let mut name = format!("{}/{}", reference.registry(), reference.repository());
    let mut names = vec![name.clone()];
    while let Some((shorter, _)) = name.rsplit_once('/') {
        name = shorter.to_owned();
        names.push(name.clone());
    }
    if reference.is_dockers() {
        names.extend([DOCKERS, "docker.io"].map(str::to_owned));
    }
    names
}

/// A key of `auths`: docker's may be addresses, `https://index.docker.io/v1/`, of which the host counts.
fn normal(key: &str) -> &str {
    match key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")) {
        Some(address) => address.split('/').next().unwrap_or(address),
        None => key.trim_end_matches('/'),
    }
}

/// # Errors
/// If it is neither a name and a password nor a token, in words.
fn login(entry: &Entry) -> Result<Option<Login>, String> {
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(token) = said(&entry.identity) {
        return Ok(Some(Login::Identity(token)));
    }
    if let Some(auth) = said(&entry.auth) {
        let decoded = STANDARD.decode(auth.trim()).map_err(|_| "its `auth` is not base64".to_owned())?;
        let text = String::from_utf8(decoded).map_err(|_| "its `auth` is no text".to_owned())?;
        let (name, password) = text.split_once(':').ok_or("its `auth` is not NAME:PASSWORD in base64")?;
        return Ok(Some(Login::Basic(name.to_owned(), password.trim_end_matches('\0').to_owned())));
    }
    Ok(said(&entry.username).map(|name| Login::Basic(name, entry.password.clone().unwrap_or_default())))
}

impl Credentials {
    /// # Errors
    /// [`RegistryError::Credentials`] and [`RegistryError::Helper`]: what is there and cannot be used would be missed silently.
    pub async fn find(reference: &Reference) -> Result<Credentials, RegistryError> {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let files = files(variable, getuid().as_raw());
        for path in &files {
            let unusable = |reason: String| RegistryError::Credentials { path: path.clone(), reason };
            let text = match fs::read(path) {
                Ok(text) => text,
                Err(error) if variable(NAMED).is_some() => {
                    return Err(unusable(format!("{error}; {NAMED} names it, and then it is the only file")));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                // Mostly the administrator's podman alone has been there.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && path.starts_with(RUN) => continue,
                Err(error) => return Err(unusable(error.to_string())),
            };
            let stored: Stored = serde_json::from_slice(&text)
                .map_err(|error| unusable(format!("no file of docker's or podman's: {error}")))?;
            if let Some((login, source)) = of_file(&stored, path, reference).await? {
                let known = format!("credentials are those of {}{source}", path.display());
                return Ok(Credentials { login: Some(login), known });
            }
        }
        let places: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
        let known = format!("no credentials for {} in {}", reference.registry(), places.join(", "));
        Ok(Credentials { login: None, known })
    }
}

async fn of_file(
    stored: &Stored,
    path: &Path,
    reference: &Reference,
) -> Result<Option<(Login, String)>, RegistryError> {
    let names = names(reference);
    // An empty name is that of no program, though there is one for others.
    let named = |name: &String| stored.helpers.iter().flatten().find(|(key, _)| normal(key) == name);
    let helper = names.iter().find_map(named).map_or(stored.store.as_ref(), |(_, helper)| helper.as_ref());
    if let Some(helper) = helper.filter(|helper| !helper.is_empty()) {
        let program = format!("docker-credential-{helper}");
        let failed = |reason: String| RegistryError::Helper { program: program.clone(), file: path.to_owned(), reason };
        if !helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
            return Err(failed("a name of a program has letters, digits, '.', '_' and '-'".into()));
        }
        let server = if reference.is_dockers() { "https://index.docker.io/v1/" } else { reference.registry() };
        let asked = timeout(PATIENCE, ask(&program, server)).await;
        let answer = asked.map_err(|_| failed(format!("no answer within {PATIENCE:?}")))?.map_err(failed)?;
        if let Some(login) = answer {
            return Ok(Some((login, format!(", by {program}"))));
        }
    }
    for name in &names {
        let mut entries = stored.auths.iter().flatten();
        let Some((_, Some(entry))) = entries.find(|(key, _)| normal(key) == name) else { continue };
        let unusable =
            |reason| RegistryError::Credentials { path: path.to_owned(), reason: format!("{name}: {reason}") };
        if let Some(login) = login(entry).map_err(unusable)? {
            return Ok(Some((login, String::new())));
        }
    }
    Ok(None)
}

/// A program of docker's credential helpers' protocol: `get`, with the server on standard input. `None`: it knows none.
async fn ask(program: &str, server: &str) -> Result<Option<Login>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let mut command = Command::new(program);
    command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let said = |error: io::Error| error.to_string();
    let mut child = command.spawn().map_err(said)?;
    let (mut stdin, stdout) = (child.stdin.take().ok_or("no pipe")?, child.stdout.take().ok_or("no pipe")?);
    // One that ends without reading says what is wrong by its status.
    let _ = stdin.write_all(server.as_bytes()).await;
    drop(stdin);
    let mut answer = Vec::new();
    stdout.take(LONGEST_ANSWER).read_to_end(&mut answer).await.map_err(said)?;
    let status = child.wait().await.map_err(said)?;
    if !status.success() {
        let text = String::from_utf8_lossy(&answer);
        let knows_none = text.trim() == "credentials not found in native keychain";
        return if knows_none { Ok(None) } else { Err(format!("{status}: {}", excerpt(text.trim()))) };
    }
    // What it says may have the secret in it, so it is not quoted.
    let Answer { username, secret } = serde_json::from_slice(&answer).map_err(|_| "its answer is no credentials")?;
    Ok(Some(if username == TOKEN { Login::Identity(secret) } else { Login::Basic(username, secret) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(stored: &str, reference: &str) -> Result<Option<Login>, String> {
        let stored: Stored = serde_json::from_str(stored).unwrap();
        let found = of_file(&stored, Path::new("file"), &reference.parse().unwrap()).await;
        found.map(|found| found.map(|(login, _)| login)).map_err(|error| error.to_string())
    }

    fn basic(name: &str, password: &str) -> Option<Login> {
        Some(Login::Basic(name.into(), password.into()))
    }

    #[tokio::test]
    async fn entries_are_found_by_registry_and_repository() {
        // "a:b", "c:d:e"
        let stored = r#"{"auths": {"r.example": {"auth": "YTpi"}, "r.example/team": {"auth": "YzpkOmU="},
            "https://index.docker.io/v1/": {"auth": "YTpi"}, "plain.example": {"username": "u", "password": "p"},
            "token.example": {"auth": "YTpi", "identitytoken": "t"}, "empty.example": {}, "wrong.example": {"auth": "%"},
            "null.example": null, "nulls.example": {"auth": null, "username": null, "password": null, "identitytoken": null}},
            "credHelpers": null, "credsStore": null}"#;
        for (reference, expected) in [
            ("oci://r.example/hello", basic("a", "b")),
            ("oci://r.example/team/hello", basic("c", "d:e")),
            ("oci://r.example/teams/hello", basic("a", "b")),
            ("oci://docker.io/hello", basic("a", "b")),
            ("oci://plain.example/hello", basic("u", "p")),
            ("oci://token.example/hello", Some(Login::Identity("t".into()))),
            ("oci://empty.example/hello", None),
            ("oci://null.example/hello", None),
            ("oci://nulls.example/hello", None),
            ("oci://r.example:80/hello", None),
        ] {
            assert!(found(stored, reference).await.unwrap() == expected, "{reference}");
        }
        assert!(found(r#"{"auths": null}"#, "oci://r.example/hello").await.unwrap().is_none());
        assert!(found(stored, "oci://wrong.example/hello").await.err().unwrap().contains("base64"));
    }

    #[tokio::test]
    async fn helpers_are_programs_by_plain_names() {
        let stored = r#"{"credHelpers": {"r.example": "../../bin/sh"}, "credsStore": "is-not-there"}"#;
        assert!(found(stored, "oci://r.example/hello").await.err().unwrap().contains("letters"));
        assert!(
            found(stored, "oci://other.example/hello").await.err().unwrap().contains("docker-credential-is-not-there")
        );
        for none in ["null", "\"\""] {
            let stored = format!(
                r#"{{"credHelpers": {{"r.example": {none}}}, "credsStore": "is-not-there", "auths": {{"r.example": {{"auth": "YTpi"}}}}}}"#
            );
            assert!(found(&stored, "oci://r.example/hello").await.unwrap() == basic("a", "b"), "{none}");
        }
    }

    #[test]
    fn files_are_those_of_podman_and_docker() {
        let of = |variables: &[(&str, &str)]| {
            let find =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value));
            files(find, 7).iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        let home = "/h/.config/containers/auth.json /h/.docker/config.json";
        assert_eq!(of(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/x")]), format!("/x/containers/auth.json {home}"));
        assert_eq!(of(&[("HOME", "/h")]), format!("/run/containers/7/auth.json {home}"));
        let named = [("HOME", "/h"), ("DOCKER_CONFIG", "/d"), ("XDG_CONFIG_HOME", "/c"), ("REGISTRY_AUTH_FILE", "/f")];
        assert_eq!(of(&named), "/f");
        let others = "/run/containers/7/auth.json /c/containers/auth.json /d/config.json";
        assert_eq!(of(&named[..3]), others);
        assert_eq!(of(&[]), "/run/containers/7/auth.json");
    }
}
