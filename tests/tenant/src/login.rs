//! The token endpoint: OAuth 2.0 client credentials as the Microsoft identity platform speaks it.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::odata::query::Options;
use crate::random::Random;
use crate::settings::SignIn;
use crate::world::{Grant, World, locked};

/// Status and body of an answer.
pub(crate) type TokenAnswer = (u16, Value);

/// The fields of a form, decoded.
///
/// # Errors
///
/// The refusal of a form that cannot be read.
pub(crate) fn form(octets: &[u8], now: Timestamp) -> Result<HashMap<String, String>, TokenAnswer> {
    let text = std::str::from_utf8(octets).map_err(|_| {
        refusal(
            400,
            "invalid_request",
            900144,
            "The request body is not UTF-8.",
            now,
        )
    })?;
    let mut fields = HashMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        // One pair is a query of its own: the same decoding, the same strictness.
        let options = Options::parse(pair)
            .map_err(|error| refusal(400, "invalid_request", 900144, &error.message, now))?;
        let name = pair.split('=').next().unwrap_or_default().to_lowercase();
        let value = options.text(&name).unwrap_or_default().to_owned();
        if fields.insert(name.clone(), value).is_some() {
            return Err(refusal(
                400,
                "invalid_request",
                900144,
                &format!("The parameter {name} is given twice."),
                now,
            ));
        }
    }
    Ok(fields)
}

/// The refusal for a tenant that the service does not have.
pub(crate) fn unknown_tenant(tenant: &str, now: Timestamp) -> TokenAnswer {
    let message = format!(
        "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud."
    );
    refusal(400, "invalid_request", 90002, &message, now)
}

/// Answers a token request for a tenant. `basic` is the value of `Authorization`, if there is one.
pub(crate) fn token(
    world: &World,
    fields: &HashMap<String, String>,
    basic: Option<&str>,
    now: Timestamp,
    instant: tokio::time::Instant,
    random: &mut Random,
) -> TokenAnswer {
    locked(&world.traffic).counts.tokens += 1;
    let conduct = world.conduct();
    match check(world, fields, basic, conduct.sign_in, now) {
        Err(refusal) => refusal,
        Ok(()) => issue(world, conduct.token_life, now, instant, random),
    }
}

/// # Errors
///
/// What is wrong with the request, in the order in which the platform looks.
fn check(
    world: &World,
    fields: &HashMap<String, String>,
    basic: Option<&str>,
    sign_in: SignIn,
    now: Timestamp,
) -> Result<(), TokenAnswer> {
    let field = |name: &str| fields.get(name).map(String::as_str);
    let refuse =
        |status, error, number, message: &str| Err(refusal(status, error, number, message, now));
    if sign_in == SignIn::Unavailable {
        return refuse(
            503,
            "temporarily_unavailable",
            90033,
            "A transient error has occurred. Please try again.",
        );
    }
    match field("grant_type") {
        Some("client_credentials") => {}
        None => {
            return refuse(
                400,
                "invalid_request",
                900144,
                "The request body must contain the following parameter: 'grant_type'.",
            );
        }
        Some(_) => {
            return refuse(
                400,
                "unsupported_grant_type",
                70003,
                "The app requested an unsupported grant type.",
            );
        }
    }
    let (basic_id, basic_secret) = basic.and_then(basic_credentials).unzip();
    let client_id = field("client_id").map(ToOwned::to_owned).or(basic_id);
    let Some(client_id) = client_id else {
        return refuse(
            400,
            "invalid_request",
            900144,
            "The request body must contain the following parameter: 'client_id'.",
        );
    };
    let application = &world.application;
    if sign_in == SignIn::NoApplication || !client_id.eq_ignore_ascii_case(&application.client_id) {
        let message = format!(
            "Application with identifier '{client_id}' was not found in the directory '{}'.",
            world.name
        );
        return refuse(400, "unauthorized_client", 700016, &message);
    }
    match field("scope") {
        Some(scope) if scope.ends_with("/.default") && !scope.contains(' ') => {}
        Some(scope) => {
            let message = format!(
                "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier."
            );
            return refuse(400, "invalid_scope", 70011, &message);
        }
        None => {
            return refuse(
                400,
                "invalid_request",
                900144,
                "The request body must contain the following parameter: 'scope'.",
            );
        }
    }
    match (
        field("client_secret")
            .map(ToOwned::to_owned)
            .or(basic_secret),
        field("client_assertion"),
    ) {
        (Some(_), Some(_)) => refuse(
            400,
            "invalid_request",
            7000218,
            "Both a secret and an assertion were given.",
        ),
        (None, None) => refuse(
            401,
            "invalid_client",
            7000216,
            "'client_assertion', 'client_secret' or 'request' is required for the 'client_credentials' grant type.",
        ),
        (None, Some(_)) => refuse(
            401,
            "invalid_client",
            700027,
            "The certificate with identifier used to sign the client assertion is not registered on application.",
        ),
        (Some(secret), None) if secret != application.secret => refuse(
            401,
            "invalid_client",
            7000215,
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID.",
        ),
        (Some(_), None) if sign_in == SignIn::SecretExpired => refuse(
            401,
            "invalid_client",
            7000222,
            "The provided client secret keys for app are expired.",
        ),
        (Some(secret), None) if sign_in == SignIn::SecretEchoed => refuse(
            401,
            "invalid_client",
            7000222,
            &format!("The provided client secret {secret} is expired."),
        ),
        (Some(_), None) => Ok(()),
    }
}

/// Client id and secret of HTTP Basic, both form-encoded (RFC 6749 §2.3.1).
fn basic_credentials(value: &str) -> Option<(String, String)> {
    let octets = STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
    let text = String::from_utf8(octets).ok()?;
    let (id, secret) = text.split_once(':')?;
    let decoded = |text: &str| {
        percent_encoding::percent_decode_str(&text.replace('+', " "))
            .decode_utf8()
            .ok()
            .map(String::from)
    };
    Some((decoded(id)?, decoded(secret)?))
}

/// A token with the permissions that are consented now.
fn issue(
    world: &World,
    life: Duration,
    now: Timestamp,
    instant: tokio::time::Instant,
    random: &mut Random,
) -> TokenAnswer {
    let roles = world
        .permissions
        .read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clone();
    let seconds = life.as_secs();
    let issued = now.as_second();
    let mut payload = json!({
        "aud": "https://graph.microsoft.com", "iss": format!("https://sts.windows.net/{}/", world.tenant_id),
        "iat": issued, "nbf": issued, "exp": issued.saturating_add_unsigned(seconds), "app_displayname": "clawback",
        "appid": world.application.client_id, "idtyp": "app", "tid": world.tenant_id, "uti": random.guid().simple().to_string(), "ver": "1.0",
    });
    if !roles.is_empty() {
        payload["roles"] = roles.clone().into();
    }
    let header = json!({ "typ": "JWT", "alg": "RS256", "kid": "simulated" });
    let signature: Vec<u8> = (0..32).flat_map(|_| random.next().to_be_bytes()).collect();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let token = format!(
        "{}.{}.{}",
        part(&header),
        part(&payload),
        URL_SAFE_NO_PAD.encode(signature)
    );
    locked(&world.tokens).insert(
        token.clone(),
        Grant {
            roles,
            expires: instant + life,
        },
    );
    (
        200,
        json!({ "token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token }),
    )
}

/// An error body of the token endpoint.
fn refusal(status: u16, error: &str, number: u32, message: &str, now: Timestamp) -> TokenAnswer {
    let time = now.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
    let trace = crate::random::guid(u64::from(number), message, 0).to_string();
    let body = json!({
        "error": error,
        "error_description": format!("AADSTS{number}: {message} Trace ID: {trace} Correlation ID: {trace} Timestamp: {time}"),
        "error_codes": [number], "timestamp": time, "trace_id": trace, "correlation_id": trace,
        "error_uri": format!("https://login.microsoftonline.com/error?code={number}"),
    });
    (status, body)
}
