//! Access tokens by client credentials (RFC 6749 §4.4), cached and renewed ahead of their end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use oauth2::basic::{BasicClient, BasicErrorResponse};
use oauth2::{
    AuthType, ClientId, ClientSecret, RequestTokenError, Scope, TokenResponse as _, TokenUrl,
};
use reqwest::header::HeaderValue;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::wire::Wire;
use super::{ClientError, Clock, SecretSource, Settings};
use crate::graph::token::{Claims, claims};
use crate::mail::TenantName;

/// A token is renewed when this share of its life is over.
const RENEW_AT: f64 = 0.8;

/// Life of a token whose answer does not say.
const DEFAULT_LIFE: Duration = Duration::from_secs(600);

/// Wait before the next try to renew a token that is still good.
const RENEW_AGAIN: Duration = Duration::from_secs(30);

/// OAuth error codes (RFC 6749 §5.2) that do not pass by themselves.
const FINAL: &[&str] = &[
    "invalid_request",
    "invalid_client",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];

/// Why there is no token. None of the texts holds the secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// The secret cannot be read.
    #[error("tenant {tenant}: the client secret cannot be read: {why}")]
    Secret {
        /// Whose.
        tenant: TenantName,
        /// Why.
        why: String,
    },
    /// The login endpoint refused.
    #[error("tenant {tenant}: the login endpoint refused a token: {error}: {description}")]
    Refused {
        /// Whose.
        tenant: TenantName,
        /// OAuth error code.
        error: String,
        /// What it said, beginning with an AADSTS number.
        description: String,
    },
    /// The login endpoint was not reached, or its answer is not understood.
    #[error("tenant {tenant}: no token: {why}")]
    Unavailable {
        /// Whose.
        tenant: TenantName,
        /// Why.
        why: String,
    },
    /// The token is of another tenant.
    #[error(
        "tenant {tenant}: the login endpoint gave a token of tenant id {found:?}; is tenant_id right?"
    )]
    OtherTenant {
        /// Whose.
        tenant: TenantName,
        /// The `tid` claim.
        found: String,
    },
}

impl TokenError {
    /// It is the administrator's to mend; asking again will not help. A secret file that cannot be read, or an
    /// error that the endpoint may have for a while only, is none: the file may be about to be replaced.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { error, .. } => FINAL.contains(&error.as_str()),
            Self::OtherTenant { .. } => true,
            Self::Secret { .. } | Self::Unavailable { .. } => false,
        }
    }
}

/// A token in memory.
pub(super) struct Token {
    /// `Bearer …`, marked as sensitive.
    pub(super) bearer: HeaderValue,
    /// What it says about itself.
    pub(super) claims: Option<Claims>,
    renew_at: Instant,
    ends_at: Instant,
}

/// The token cache of one tenant.
pub(super) struct Tokens {
    tenant: TenantName,
    tenant_id: String,
    client_id: String,
    secret: SecretSource,
    url: String,
    scope: String,
    clock: Clock,
    cached: Mutex<Option<Arc<Token>>>,
}

impl Tokens {
    pub(super) fn new(settings: &Settings) -> Self {
        let path = format!("/{}/oauth2/v2.0/token", settings.tenant_id);
        Self {
            tenant: settings.tenant.clone(),
            tenant_id: settings.tenant_id.clone(),
            client_id: settings.client_id.clone(),
            secret: Arc::clone(&settings.secret),
            url: settings.login.join(&path),
            scope: settings.graph.scope(),
            clock: settings.clock,
            cached: Mutex::new(None),
        }
    }

    /// A token that is good now; one is fetched if need be, once for all who wait.
    pub(super) async fn current(&self, wire: &Wire) -> Result<Arc<Token>, ClientError> {
        let mut cached = self.cached.lock().await;
        let now = (self.clock.monotonic)();
        if let Some(token) = cached.as_ref().filter(|token| now < token.renew_at) {
            return Ok(Arc::clone(token));
        }
        match self.fetch(wire).await {
            Ok(token) => Ok(Arc::clone(cached.insert(Arc::new(token)))),
            Err(error) => {
                let old = cached.take().filter(|token| now < token.ends_at);
                let Some(old) = old else {
                    return Err(Arc::new(error).into());
                };
                // Still good: the login endpoint has until its end to come back.
                let old = Token {
                    bearer: old.bearer.clone(),
                    claims: old.claims.clone(),
                    renew_at: now + RENEW_AGAIN,
                    ends_at: old.ends_at,
                };
                Ok(Arc::clone(cached.insert(Arc::new(old))))
            }
        }
    }

    /// Graph refused this token: the next request gets a new one. If there is a newer one, that stays.
    pub(super) async fn refused(&self, token: &Token) {
        let mut cached = self.cached.lock().await;
        cached.take_if(|cached| cached.bearer == token.bearer);
    }

    async fn fetch(&self, wire: &Wire) -> Result<Token, TokenError> {
        let secret = (self.secret)().map_err(|why| TokenError::Secret {
            tenant: self.tenant.clone(),
            why,
        })?;
        let unavailable = |why: String| TokenError::Unavailable {
            tenant: self.tenant.clone(),
            why,
        };
        let url =
            TokenUrl::new(self.url.clone()).map_err(|error| unavailable(error.to_string()))?;
        let client = BasicClient::new(ClientId::new(self.client_id.clone()))
            .set_client_secret(ClientSecret::new(secret.to_string()))
            .set_auth_type(AuthType::RequestBody)
            .set_token_uri(url);
        let started = (self.clock.monotonic)();
        let send = |request| {
            let wire = wire.clone();
            async move { wire.token(request).await }
        };
        let response = client
            .exchange_client_credentials()
            .add_scope(Scope::new(self.scope.clone()))
            .request_async(&send)
            .await
            .map_err(|error| self.explain(error, &secret))?;
        let text = response.access_token().secret();
        let claims = claims(text);
        let other = claims.as_ref().and_then(|claims| claims.tenant_id.as_ref());
        if let Some(found) = other.filter(|found| !found.eq_ignore_ascii_case(&self.tenant_id)) {
            return Err(TokenError::OtherTenant {
                tenant: self.tenant.clone(),
                found: found.clone(),
            });
        }
        let bearer = Zeroizing::new(format!("Bearer {text}"));
        let mut bearer = HeaderValue::from_str(&bearer)
            .map_err(|_| unavailable("the token is no header value".to_owned()))?;
        bearer.set_sensitive(true);
        let life = response.expires_in().unwrap_or(DEFAULT_LIFE);
        Ok(Token {
            bearer,
            claims,
            renew_at: started + life.mul_f64(RENEW_AT),
            ends_at: started + life,
        })
    }

    fn explain(
        &self,
        error: RequestTokenError<ClientError, BasicErrorResponse>,
        secret: &str,
    ) -> TokenError {
        // Should the endpoint echo what it got, it goes no further.
        let clean = |text: String| match secret.is_empty() {
            true => text,
            false => text.replace(secret, "…"),
        };
        let tenant = self.tenant.clone();
        match error {
            RequestTokenError::ServerResponse(response) => TokenError::Refused {
                tenant,
                error: clean(response.error().to_string()),
                description: clean(response.error_description().cloned().unwrap_or_default()),
            },
            RequestTokenError::Request(error) => TokenError::Unavailable {
                tenant,
                why: clean(error.to_string()),
            },
            // The body is left out: it may hold a token.
            RequestTokenError::Parse(..) | RequestTokenError::Other(_) => TokenError::Unavailable {
                tenant,
                why: "the answer of the login endpoint is not understood".to_owned(),
            },
        }
    }
}
