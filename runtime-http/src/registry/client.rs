//! One repository of a registry: requests to it, with authentication and redirects.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use serde::Deserialize;

use super::{
    RegistryError,
    challenge::Challenge,
    credentials::{Credentials, Login},
    origin::{Origin, parse, resolve},
    reference::Reference,
    transport::{Payload, Transport, read},
};
use crate::excerpt::excerpt;

/// Redirects of one request: from a registry to where it stores its blobs it is one.
const REDIRECTS: usize = 5;
/// What is asked for by a reference, in words.
pub const MANIFEST: &str = "the manifest";
/// What is read of an answer that says what is wrong.
const LONGEST_REFUSAL: u64 = 16 << 10;

/// A repository, for one command.
pub struct Registry {
    pub(super) transport: Transport,
    pub reference: Reference,
    pub origin: Origin,
    /// Whether its user has said that credentials may be read on their way.
    pub(super) plain_http: bool,
    /// Whether more is wanted than to read.
    pushes: bool,
    /// Looked for when the registry asks for them.
    credentials: Option<Credentials>,
    authorization: Option<HeaderValue>,
}

/// An answer that is none of an error, and who gave it.
pub struct Answer {
    pub authority: String,
    pub head: http::response::Parts,
    pub body: Incoming,
}

/// What is asked for.
pub struct Ask {
    pub method: Method,
    pub address: Uri,
    pub headers: HeaderMap,
    pub payload: Payload,
    /// In words.
    pub what: &'static str,
}

impl Registry {
    /// # Errors
    /// [`RegistryError::Ca`] and [`RegistryError::Address`]
    pub fn new(reference: Reference, ca: Option<&Path>, plain_http: bool) -> Result<Registry, RegistryError> {
        // As docker does: what is on this machine need not have a certificate. With a certificate to be trusted it has one.
        let is_tls = !plain_http && (ca.is_some() || !reference.is_local());
        Ok(Registry {
            transport: Transport::new(ca)?,
            origin: Origin::new(is_tls, reference.authority())?,
            reference,
            plain_http,
            pushes: false,
            credentials: None,
            authorization: None,
        })
    }

    /// From now on what is asked for is to write, too. Not all registries ask again who has shown a token for reading.
    pub fn begin_push(&mut self) {
        self.pushes = true;
    }

    /// An address below the repository's.
    ///
    /// # Errors
    /// [`RegistryError::Address`]; there is no such reference.
    pub fn address(&self, below: &str) -> Result<Uri, RegistryError> {
        parse(&format!("{}/v2/{}/{below}", self.origin, self.reference.repository()))
    }

    /// Asks, as whom the registry wants to know, and where it redirects to.
    ///
    /// # Errors
    /// [`RegistryError`], if it is not answered with a good status.
    pub async fn ask(&mut self, ask: Ask) -> Result<Answer, RegistryError> {
        let what = ask.what;
        let mut address = ask.address;
        let (mut redirects, mut has_answered) = (0, false);
        loop {
            let origin = Origin::of(&address)?;
            let is_home = origin == self.origin;
            let mut request = Request::new(ask.payload.clone());
            *request.method_mut() = ask.method.clone();
            *request.uri_mut() = address.clone();
            *request.headers_mut() = ask.headers.clone();
            if let Some(authorization) = self.authorization.as_ref().filter(|_| is_home) {
                request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
            }
            let answer = self.transport.send(request).await?;
            let status = answer.status();
            if status == StatusCode::UNAUTHORIZED && is_home && !has_answered {
                has_answered = true;
                let challenge = Challenge::of(values(answer.headers(), header::WWW_AUTHENTICATE));
                if self.answer(challenge).await? {
                    continue;
                }
            }
            if is_redirect(status) && matches!(ask.method, Method::GET | Method::HEAD) {
                redirects += 1;
                let wrong = |reason: String| RegistryError::Redirect { authority: origin.authority(), what, reason };
                if redirects > REDIRECTS {
                    return Err(wrong(format!("more than {REDIRECTS} times")));
                }
                let location = answer.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
                let location = location.ok_or_else(|| wrong("nowhere".into()))?;
                address = resolve(&address, location)?;
                continue;
            }
            let authority = origin.authority();
            if status.is_success() {
                let (head, body) = answer.into_parts();
                return Ok(Answer { authority, head, body });
            }
            return Err(self.refused(authority, is_home, what, answer).await);
        }
    }

    async fn credentials(&mut self) -> Result<&Credentials, RegistryError> {
        if self.credentials.is_none() {
            self.credentials = Some(Credentials::find(&self.reference).await?);
        }
        Ok(self.credentials.as_ref().expect("it was just set"))
    }

    /// Learns what to say to a challenge; whether there is something.
    async fn answer(&mut self, challenge: Option<Challenge>) -> Result<bool, RegistryError> {
        let login = self.credentials().await?.login.clone();
        self.authorization = match (challenge, login) {
            (Some(Challenge::Basic), Some(Login::Basic(name, password))) => Some(basic(&name, &password)),
            (Some(Challenge::Bearer { realm, service, scope }), login) => {
                let own = |actions| Some(format!("repository:{}:{actions}", self.reference.repository()));
                let scope = if self.pushes { own("pull,push") } else { scope.or_else(|| own("pull")) };
                let token = self.token(&realm, service.as_deref(), scope.as_deref(), login).await?;
                secret(format!("Bearer {token}"))
            }
            (Some(Challenge::Basic) | None, _) => None,
        };
        Ok(self.authorization.is_some())
    }

    /// What an answer says that is none. `knows_us`: it is for who gives it to say what these credentials may do.
    pub(super) async fn refused(
        &self,
        authority: String,
        knows_us: bool,
        what: &'static str,
        answer: Response<Incoming>,
    ) -> RegistryError {
        #[derive(Deserialize)]
        struct Refusal {
            errors: Vec<Reason>,
        }
        #[derive(Deserialize)]
        struct Reason {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let status = answer.status();
        let mut text = Vec::new();
        // What is longer is no answer of a registry: the status says enough.
        let _ = read(answer.into_body(), LONGEST_REFUSAL, (&authority, what, ""), |piece| {
            text.extend_from_slice(piece);
            Ok(())
        })
        .await;
        let reasons = serde_json::from_slice::<Refusal>(&text).map(|refusal| refusal.errors).unwrap_or_default();
        let detail = reasons.first().map_or_else(String::new, |reason| {
            excerpt(format_args!(" ({} {})", reason.code, reason.message)).replace('\n', " ")
        });
        let known = self.credentials.as_ref().map_or("no credentials were asked for", |credentials| &credentials.known);
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if knows_us => RegistryError::Unauthorised {
                authority,
                registry: self.reference.registry().to_owned(),
                what,
                detail,
                known: known.to_owned(),
            },
            StatusCode::NOT_FOUND => {
                let hint = match (self.pushes, what) {
                    (true, _) => "the repository may have to be created first.",
                    (false, MANIFEST) if self.reference.digest().is_none() => "is the name right, and the tag?",
                    (false, _) => "is the name right?",
                };
                let (reference, known) = (self.reference.to_string(), known.to_owned());
                RegistryError::NotFound { reference, what, detail, hint, known }
            }
            _ => RegistryError::Refused { authority, status, what, detail },
        }
    }
}

fn values(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// A header that is not shown, if it can be one.
fn secret(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

pub(super) fn basic(name: &str, password: &str) -> HeaderValue {
    secret(format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))).expect("base64 can be in a header")
}
