//! A tenant's configuration to its client.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::clock::CLOCK;
use crate::config::{self, Config, Credential, Secret, Tenant};
use crate::graph::client::{Client, SecretSource, Settings};
use crate::graph::cloud::{Base, Cloud};
use crate::graph::pace::{BATCH_WIDTH, Backoff};

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(15);

/// Time for a batch: 20 requests, 4 at a time, each of which may take Exchange some seconds.
const EXCHANGE: Duration = Duration::from_secs(120);

/// The client of a tenant; if there is none, why.
pub(super) fn client(config: &Config, tenant: &Tenant, backoff: Backoff) -> Result<Client, String> {
    let client_id = tenant
        .client_id
        .clone()
        .ok_or_else(|| "its client_id and client_secret_file are not configured".to_owned())?;
    let cloud = cloud(tenant.cloud);
    let base = |given: Option<&url::Url>, default: &str| {
        Base::parse(given.map_or(default, url::Url::as_str)).map_err(|error| error.to_string())
    };
    let authorities = [&tenant.ca_file, &config.network.ca_file];
    let authorities = authorities.into_iter().flatten().map(|path| read(path));
    Client::new(Settings {
        tenant: tenant.name.clone(),
        tenant_id: tenant.tenant_id.clone(),
        client_id,
        secret: secret(tenant)?,
        graph: base(tenant.graph_url.as_ref(), cloud.graph_url())?,
        login: base(tenant.login_url.as_ref(), cloud.login_url())?,
        authorities: authorities.collect::<Result<_, _>>()?,
        proxy: config.network.proxy.clone(),
        // Microsoft's pages disagree on what may run at once: the smaller reading is safe.
        limit: config.retraction.concurrency.min(BATCH_WIDTH),
        connect_timeout: CONNECT,
        timeout: EXCHANGE,
        backoff,
        clock: CLOCK,
    })
    .map_err(|error| error.to_string())
}

fn cloud(cloud: config::Cloud) -> Cloud {
    match cloud {
        config::Cloud::Global => Cloud::Global,
        config::Cloud::GccHigh => Cloud::GccHigh,
        config::Cloud::Dod => Cloud::Dod,
        config::Cloud::China => Cloud::China,
    }
}

fn secret(tenant: &Tenant) -> Result<SecretSource, String> {
    match &tenant.credential {
        Some(Credential::Secret(path)) => {
            let path = path.clone();
            Ok(Arc::new(move || {
                let secret = Secret::read(&path).map_err(|error| error.to_string())?;
                Ok(Zeroizing::new(secret.expose().to_owned()))
            }))
        }
        Some(Credential::Certificate { .. }) => {
            Err("a certificate as credential comes later; use client_secret_file".to_owned())
        }
        None => Err("client_secret_file is not configured".to_owned()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}
