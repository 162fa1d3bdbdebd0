//! What an access token says about itself. For diagnosis alone: Graph decides what it is good for.
//!
//! Microsoft calls its tokens opaque, so one that cannot be read is no error. The signature is not
//! checked: the token came from the login endpoint over TLS, and goes back to the same cloud.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// The claims that are looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// Names of the application permissions that were consented to. `None`: the token has no such claim, which
    /// is what a token without any permission looks like, too.
    pub roles: Option<Vec<String>>,
    /// The tenant that issued it.
    #[serde(rename = "tid")]
    pub tenant_id: Option<String>,
}

impl Claims {
    /// Whether one of these permissions is among the roles.
    pub fn has_any(&self, names: &[&str]) -> bool {
        let roles = self.roles.as_deref().unwrap_or_default();
        roles.iter().any(|role| names.contains(&role.as_str()))
    }
}

/// Reads the claims of a JWT (RFC 7519 §7.2, payload alone); `None` if the token is of another kind.
pub fn claims(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    let octets = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(payload: &str) -> String {
        format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn tokens() {
        let read = claims(&jwt(r#"{"roles":["Mail.ReadWrite"],"tid":"t","exp":1}"#)).unwrap();
        assert!(read.has_any(&["Mail.ReadWrite"]) && !read.has_any(&["User.Read.All"]));
        assert_eq!(read.tenant_id.as_deref(), Some("t"));
        assert_eq!(claims(&jwt("{}")), Some(Claims::default()));
        for (name, token) in [
            ("opaque", "abcdef"),
            ("no base64", "a.!!.c"),
            ("no JSON", "a.YWJj.c"),
            ("empty", ""),
        ] {
            assert_eq!(claims(token), None, "{name}");
        }
    }
}
