//! The Graph client against the simulated tenant over HTTPS, by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clawback::graph::api::{MailboxId, Request, Scope};
use clawback::graph::client::{Client, ClientError, Clock, Settings};
use clawback::graph::cloud::Base;
use clawback::graph::folder::WellKnown;
use clawback::graph::pace::Backoff;
use clawback::mail::TenantName;
use clawback_tenant::{Conduct, Fault, FaultKind, Scope as Sort, SignIn, Tenant};
use zeroize::Zeroizing;

use crate::support::{Log, alone};

#[expect(clippy::disallowed_methods, reason = "the driver of this test")]
const CLOCK: Clock = Clock {
    wall: jiff::Timestamp::now,
    monotonic: Instant::now,
};

pub(crate) fn settings(tenant: &Tenant, name: &str) -> Settings {
    let secret = tenant.client_secret().to_owned();
    Settings {
        tenant: TenantName::new(name),
        tenant_id: tenant.tenant_id().to_owned(),
        client_id: tenant.client_id().to_owned(),
        secret: Arc::new(move || Ok(Zeroizing::new(secret.clone()))),
        graph: Base::parse(&tenant.graph_url()).unwrap(),
        login: Base::parse(&tenant.login_url()).unwrap(),
        authorities: vec![tenant.ca_pem().as_bytes().to_vec()],
        proxy: None,
        limit: 4,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(10),
        backoff: Backoff {
            first: Duration::from_millis(5),
            longest: Duration::from_millis(20),
        },
        clock: CLOCK,
    }
}

pub(crate) fn client(tenant: &Tenant, name: &str) -> Client {
    Client::new(settings(tenant, name)).unwrap()
}

async fn tenant(change: impl FnOnce(&mut Conduct)) -> Tenant {
    let users = ["a@contoso.example", "b@contoso.example"];
    let tenant = Tenant::start(clawback_tenant::Settings::with_users(users))
        .await
        .unwrap();
    tenant.change(change);
    tenant
}

fn inbox(tenant: &Tenant, address: &str) -> Request {
    let mailbox = MailboxId {
        tenant: TenantName::new("contoso"),
        user: tenant.user_id(address).unwrap(),
    };
    Request::well_known(&mailbox, WellKnown::Inbox).unwrap()
}

#[tokio::test]
async fn one_token_serves_many_requests() {
    let tenant = tenant(|_| {}).await;
    let client = client(&tenant, "contoso");
    let request = inbox(&tenant, "a@contoso.example");
    let calls = (0..10).map(|_| client.call(&request));
    for answer in futures_util::future::join_all(calls).await {
        assert!(answer.unwrap().folder().unwrap().name.is_some());
    }
    assert_eq!(tenant.counts().tokens, 1);
    assert!(tenant.counts().peak_mailbox <= 4);
    let claims = client.claims().await.unwrap().unwrap();
    assert!(claims.has_any(&["Mail.ReadWrite"]));
}

#[tokio::test]
async fn a_token_is_renewed_ahead_of_its_end() {
    let tenant = tenant(|conduct| conduct.token_life = Duration::from_secs(100)).await;
    static STEPS: AtomicUsize = AtomicUsize::new(0);
    /// Each reading is 30 seconds later than the one before.
    fn monotonic() -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let step = STEPS.fetch_add(1, Ordering::Relaxed) as u64;
        *START.get_or_init(CLOCK.monotonic) + Duration::from_secs(30 * step)
    }
    let clock = Clock { monotonic, ..CLOCK };
    let client = Client::new(Settings {
        clock,
        ..settings(&tenant, "contoso")
    })
    .unwrap();
    let mut readings = Vec::new();
    for _ in 0..8 {
        client.claims().await.unwrap();
        readings.push(tenant.counts().tokens);
    }
    // Read at 0 and 30 (fetch), then at 60, 90: good until 80 % of 100 s after the fetch began.
    assert_eq!(readings.first(), Some(&1));
    assert!((2..=4).contains(readings.last().unwrap()), "{readings:?}");
    assert!(
        readings.windows(2).any(|pair| pair[0] == pair[1]),
        "{readings:?}"
    );
}

#[tokio::test]
async fn a_good_token_outlives_trouble_of_the_login_endpoint() {
    let tenant = tenant(|conduct| conduct.token_life = Duration::ZERO).await;
    let client = client(&tenant, "contoso");
    tenant.change(|conduct| conduct.sign_in = SignIn::Unavailable);
    let error = client.claims().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Token(error) if !error.is_refusal()),
        "{error}"
    );
    tenant.change(|conduct| conduct.sign_in = SignIn::SecretExpired);
    let error = client.claims().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Token(error) if error.is_refusal()),
        "{error}"
    );
    tenant.change(|conduct| {
        conduct.sign_in = SignIn::Normal;
        conduct.token_life = Duration::from_secs(3600);
    });
    client.claims().await.unwrap();
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let tenant = tenant(|_| {}).await;
    let client = client(&tenant, "contoso");
    let request = inbox(&tenant, "a@contoso.example");
    client.call(&request).await.unwrap().success().unwrap();
    tenant.expire_tokens();
    client.call(&request).await.unwrap().success().unwrap();
    assert_eq!(tenant.counts().tokens, 2);
    tenant.change(|conduct| {
        conduct.faults = vec![Fault::new(FaultKind::Unauthorized, 1.0).scope(Sort::Any)];
    });
    let refused = client.call(&request).await.unwrap();
    assert_eq!(refused.status, 401);
    assert!(tenant.counts().tokens <= 3);
}

/// A secret file that is being replaced cannot be read for a moment.
#[tokio::test]
async fn a_secret_that_cannot_be_read_is_no_refusal() {
    let tenant = tenant(|_| {}).await;
    let unread = Settings {
        secret: Arc::new(|| Err("no such file".to_owned())),
        ..settings(&tenant, "contoso")
    };
    let error = Client::new(unread).unwrap().claims().await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Token(error) if !error.is_refusal()),
        "{error}"
    );
}

#[tokio::test]
async fn trouble_that_passes_is_waited_out() {
    let tenant = tenant(|conduct| {
        conduct.faults = vec![
            Fault::new(FaultKind::Status(503, Some(0)), 1.0).times(2),
            Fault::new(FaultKind::Status(429, Some(0)), 1.0).times(1),
            Fault::new(FaultKind::Dropped, 1.0).times(1),
        ];
    })
    .await;
    let client = client(&tenant, "contoso");
    let answer = client
        .call(&inbox(&tenant, "a@contoso.example"))
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(tenant.counts().faults, 4);
}

#[tokio::test]
async fn a_batch_has_an_answer_for_each_request() {
    let tenant = tenant(|_| {}).await;
    let client = client(&tenant, "contoso");
    let mailbox = |address: &str| MailboxId {
        tenant: TenantName::new("contoso"),
        user: tenant.user_id(address).unwrap(),
    };
    let nobody = MailboxId {
        user: "00000000-0000-0000-0000-00000000ffff".into(),
        ..mailbox("a@contoso.example")
    };
    let requests = [
        Request::locate(&mailbox("a@contoso.example"), Scope::AllFolders, "<none@x>").unwrap(),
        Request::well_known(&nobody, WellKnown::Inbox).unwrap(),
        Request::well_known(&mailbox("b@contoso.example"), WellKnown::JunkEmail).unwrap(),
    ];
    let keys: Vec<_> = requests
        .iter()
        .map(|request| request.mailbox().cloned())
        .collect();
    let (chosen, permit) = client.admit(&keys).unwrap();
    assert_eq!(chosen, [0, 1, 2]);
    let answers = client.batch(&requests, permit).await.unwrap();
    let answers: Vec<_> = answers.into_iter().map(Option::unwrap).collect();
    assert!(answers[0].messages(client.base()).unwrap().items.is_empty());
    assert_eq!(answers[1].status, 404);
    assert!(answers[2].folder().is_ok());
    assert_eq!(tenant.counts().batches, 1);
}

#[tokio::test]
async fn only_the_given_authority_is_trusted_for_a_private_host() {
    let tenant = tenant(|_| {}).await;
    let client = Client::new(Settings {
        authorities: Vec::new(),
        ..settings(&tenant, "contoso")
    })
    .unwrap();
    let error = client
        .call(&inbox(&tenant, "a@contoso.example"))
        .await
        .unwrap_err();
    assert!(!error.may_have_run(), "{error}");
    assert_eq!(tenant.counts().tokens, 0);
}

#[tokio::test]
async fn nothing_prints_the_secret_or_the_token() {
    if !alone("graph_client::nothing_prints_the_secret_or_the_token") {
        return;
    }
    let log = Log::start();
    let tenant = tenant(|_| {}).await;
    let settings = settings(&tenant, "contoso");
    let shown = format!("{settings:?}");
    let client = Client::new(settings).unwrap();
    client
        .call(&inbox(&tenant, "a@contoso.example"))
        .await
        .unwrap();
    tenant.expire_tokens();
    client
        .call(&inbox(&tenant, "a@contoso.example"))
        .await
        .unwrap();
    tenant.expire_tokens();
    tenant.change(|conduct| conduct.sign_in = SignIn::SecretExpired);
    let error = client.claims().await.map(|_| ()).err();
    let call = client.call(&inbox(&tenant, "a@contoso.example")).await;
    let logged = log.text();
    assert!(
        logged.contains("Graph answered"),
        "the log has {} octets",
        logged.len()
    );
    let shown = format!("{shown}{client:?}{error:?}{call:?}{logged}");
    for (n, encoded) in [
        tenant.client_secret().to_owned(),
        url::form_urlencoded::byte_serialize(tenant.client_secret().as_bytes()).collect(),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(!shown.contains(&encoded), "{n}");
    }
    assert!(
        !shown.contains(tenant.client_secret()) && !shown.contains("Bearer"),
        "{shown}"
    );
}
