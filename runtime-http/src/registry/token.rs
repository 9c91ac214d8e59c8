//! Tokens of the server that a registry names for them (distribution, "Token Authentication Specification", and "OAuth2 Token Authentication").

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{
    Registry, RegistryError,
    client::basic,
    credentials::Login,
    origin::{Origin, parse, resolve},
    transport::{Payload, read},
};

const LONGEST: u64 = 256 << 10;
const WHAT: &str = "a token";

/// Some servers give it by both names.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    /// Asks `realm` for a token.
    ///
    /// # Errors
    /// [`RegistryError`], also if somebody could read `login` on its way there.
    pub(super) async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        login: Option<Login>,
    ) -> Result<String, RegistryError> {
        let parameters = |more: &[(&str, &str)]| {
            let given = [("service", service), ("scope", scope)];
            let given = given.into_iter().filter_map(|(name, value)| value.map(|value| (name, value)));
            let all = given.chain(more.iter().copied());
            all.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
                .collect::<Vec<_>>()
                .join("&")
        };
        let realm = resolve(&parse(&format!("{}/", self.origin))?, realm)?;
        let origin = Origin::of(&realm)?;
        let authority = origin.authority();
        if login.is_some() && !origin.is_private() && !self.plain_http {
            return Err(RegistryError::Exposed { registry: self.reference.registry().to_owned(), authority });
        }
        let mut request = match &login {
            Some(Login::Identity(token)) => {
                let form =
                    parameters(&[("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", "wasmbox")]);
                let mut request = Request::new(Payload::new([Bytes::from(form)]));
                *request.method_mut() = Method::POST;
                let form = HeaderValue::from_static("application/x-www-form-urlencoded");
                request.headers_mut().insert(header::CONTENT_TYPE, form);
                *request.uri_mut() = realm;
                request
            }
            Some(Login::Basic(..)) | None => {
                let joint = if realm.query().is_some() { '&' } else { '?' };
                let mut request = Request::new(Payload::empty());
                *request.uri_mut() = parse(&format!("{realm}{joint}{}", parameters(&[])))?;
                request
            }
        };
        if let Some(Login::Basic(name, password)) = &login {
            request.headers_mut().insert(header::AUTHORIZATION, basic(name, password));
        }
        let answer = self.transport.send(request).await?;
        if !answer.status().is_success() {
            return Err(self.refused(authority, true, WHAT, answer).await);
        }
        let mut text = Vec::new();
        read(answer.into_body(), LONGEST, (&authority, WHAT, "no token is that long"), |piece| {
            text.extend_from_slice(piece);
            Ok(())
        })
        .await?;
        let given = serde_json::from_slice::<Token>(&text).ok();
        let given = given.and_then(|Token { token, access_token }| {
            [token, access_token].into_iter().flatten().find(|token| !token.is_empty())
        });
        given.ok_or_else(|| RegistryError::Http {
            authority,
            reason: "it was asked for a token, and has sent none".into(),
        })
    }
}
