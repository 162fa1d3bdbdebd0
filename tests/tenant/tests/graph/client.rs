//! An HTTP client that checks every answer against the contract.

use std::collections::HashMap;

use clawback_tenant::{Delivered, Mail, Settings, Tenant, User};
use reqwest::{Certificate, Method, Response};
use serde_json::{Value, json};

use crate::contract;

/// A tenant and a signed-in client.
pub(crate) struct Client {
    pub(crate) tenant: Tenant,
    pub(crate) http: reqwest::Client,
    pub(crate) token: String,
}

/// An answer, checked.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Value,
}

impl Answer {
    /// `error.code`.
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or_default()
    }

    /// The items of a collection.
    pub(crate) fn value(&self) -> &[Value] {
        self.body["value"].as_array().expect("a collection")
    }
}

/// Ana, Bo and Chi; Ana has an alias.
pub(crate) fn people() -> Settings {
    let mut settings = Settings::with_users([
        "ana@contoso.example",
        "bo@contoso.example",
        "chi@contoso.example",
    ]);
    settings.users[0] = User::new("ana@contoso.example").alias("a.smith@contoso.example");
    settings
}

/// An HTTP client that trusts the tenant's authority.
pub(crate) fn http(tenant: &Tenant) -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy();
    match tenant.ca_pem() {
        "" => builder.build().unwrap(),
        pem => builder
            .tls_certs_only([Certificate::from_pem(pem.as_bytes()).unwrap()])
            .build()
            .unwrap(),
    }
}

/// Asks for a token.
pub(crate) async fn sign_in(tenant: &Tenant, http: &reqwest::Client) -> Answer {
    token(
        tenant,
        http,
        &[
            ("client_id", tenant.client_id()),
            ("client_secret", tenant.client_secret()),
        ],
    )
    .await
}

/// Asks for a token with these credentials, and the usual scope and grant type unless given.
pub(crate) async fn token(
    tenant: &Tenant,
    http: &reqwest::Client,
    fields: &[(&str, &str)],
) -> Answer {
    let mut form: HashMap<&str, &str> = [
        ("scope", "https://graph.microsoft.com/.default"),
        ("grant_type", "client_credentials"),
    ]
    .into();
    form.extend(fields.iter().copied());
    form.retain(|_, value| !value.is_empty());
    let url = format!(
        "{}/{}/oauth2/v2.0/token",
        tenant.login_url(),
        tenant.tenant_id()
    );
    let response = http.post(url).form(&form).send().await.unwrap();
    let answer = read(response).await;
    contract::check(
        "POST",
        "/t/oauth2/v2.0/token",
        answer.status,
        Some(&answer.body),
    );
    answer
}

impl Client {
    /// A tenant where these people have an invoice in their inboxes.
    pub(crate) async fn with_invoice(to: &[&str]) -> (Self, Delivered) {
        let client = Self::start(people()).await;
        let delivered = client.tenant.deliver(&inbound(to, "Invoice"));
        (client, delivered)
    }

    /// A client of a new tenant.
    pub(crate) async fn start(settings: Settings) -> Self {
        Self::of(Tenant::start(settings).await.unwrap()).await
    }

    /// A client of a tenant.
    pub(crate) async fn of(tenant: Tenant) -> Self {
        let http = http(&tenant);
        let token = sign_in(&tenant, &http).await.body["access_token"]
            .as_str()
            .expect("a token")
            .to_owned();
        Self {
            tenant,
            http,
            token,
        }
    }

    /// `/users/{object id}` of an address.
    pub(crate) fn user(&self, address: &str) -> String {
        format!("/users/{}", self.tenant.user_id(address).expect("a user"))
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.send(
            Method::GET,
            target,
            &[("Prefer", "IdType=\"ImmutableId\"")],
            None,
        )
        .await
    }

    pub(crate) async fn post(&self, target: &str, body: Option<Value>) -> Answer {
        self.send(
            Method::POST,
            target,
            &[("Prefer", "IdType=\"ImmutableId\"")],
            body,
        )
        .await
    }

    /// Moves a message.
    pub(crate) async fn move_to(&self, user: &str, id: &str, folder: &str) -> Answer {
        self.post(
            &format!("{user}/messages/{id}/move"),
            Some(json!({ "destinationId": folder })),
        )
        .await
    }

    /// Sends a request and checks the answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Answer {
        let response = self
            .try_send(method.clone(), target, headers, body)
            .await
            .expect("an answer");
        let answer = read(response).await;
        let path = target.split('?').next().unwrap_or_default();
        let has_body = answer.status != 204
            && answer
                .headers
                .get("content-type")
                .is_none_or(|found| found.contains("json"));
        if !target.contains('(') && has_body {
            contract::check(
                method.as_str(),
                &format!("/v1.0{path}"),
                answer.status,
                Some(&answer.body),
            );
        } else if answer.status == 204 {
            contract::check(method.as_str(), &format!("/v1.0{path}"), 204, None);
        }
        answer
    }

    /// Sends a request; an error if there is no answer.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> reqwest::Result<Response> {
        let mut request = self
            .http
            .request(method, format!("{}{target}", self.tenant.graph_url()))
            .bearer_auth(&self.token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match body {
            Some(body) => request.json(&body).send().await,
            None => request.send().await,
        }
    }

    /// Runs a batch, checks each answer against the operation of its item, and gives them by id.
    pub(crate) async fn batch(&self, requests: &[Value]) -> HashMap<String, Value> {
        let answer = self
            .post("/$batch", Some(json!({ "requests": requests })))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let mut found = HashMap::new();
        for response in answer.body["responses"].as_array().unwrap() {
            let id = response["id"].as_str().unwrap().to_owned();
            let request = requests
                .iter()
                .find(|request| request["id"] == *id)
                .expect("an id of ours");
            let path = request["url"].as_str().unwrap().split('?').next().unwrap();
            let status = u16::try_from(response["status"].as_u64().unwrap()).unwrap();
            contract::check(
                request["method"].as_str().unwrap(),
                &format!("/v1.0{path}"),
                status,
                response.get("body"),
            );
            found.insert(id, response.clone());
        }
        assert_eq!(found.len(), requests.len());
        found
    }
}

/// The ids and subjects of what is delivered: one message from outside to these.
pub(crate) fn inbound(to: &[&str], subject: &str) -> Mail {
    Mail::new("Billing <billing@tailspin.example>", to, subject)
}

/// An answer with its body as JSON; null if there is none.
async fn read(response: Response) -> Answer {
    let status = response.status().as_u16();
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let octets = response.bytes().await.unwrap();
    Answer {
        status,
        headers,
        body: serde_json::from_slice(&octets).unwrap_or_default(),
    }
}
