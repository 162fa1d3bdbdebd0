//! The journal addresses: which forward-path is whose, and who may hand over a tenant's reports.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{Config, Peer, Tenant};
use crate::mail::{Address, ForwardPath};

/// Every journal address of the configuration.
#[derive(Debug)]
pub(crate) struct Book {
    /// Folded address to tenant and region.
    addresses: HashMap<String, Arc<Place>>,
    /// Some tenant wants its peers to prove themselves by a certificate.
    asks_certificates: bool,
}

/// Where a report belongs.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) region: Option<String>,
    /// The journal address, as configured.
    pub(crate) address: Address,
}

impl Place {
    /// Whether reports for both addresses may share a transaction: one tenant, one region.
    pub(crate) fn is_with(&self, other: &Self) -> bool {
        self.tenant.name == other.tenant.name && self.region == other.region
    }

    /// Whether this peer is on the tenant's list.
    pub(crate) fn admits(&self, peer: IpAddr, certificate_names: &[String]) -> bool {
        self.tenant.admits(peer, certificate_names)
    }
}

impl Book {
    pub(crate) fn new(config: &Config) -> Self {
        let mut addresses = HashMap::new();
        let mut asks_certificates = false;
        for tenant in &config.tenants {
            asks_certificates |= tenant
                .peers
                .iter()
                .any(|peer| matches!(peer, Peer::Certificate(_)));
            let shared = Arc::new(tenant.clone());
            for journal in &tenant.journal {
                let place = Place {
                    tenant: Arc::clone(&shared),
                    region: journal.region.clone(),
                    address: journal.address.clone(),
                };
                addresses.insert(journal.address.folded(), Arc::new(place));
            }
        }
        Self {
            addresses,
            asks_certificates,
        }
    }

    /// Whose journal address this is.
    pub(crate) fn find(&self, path: &ForwardPath) -> Option<&Arc<Place>> {
        match path {
            ForwardPath::Mailbox(address) => self.addresses.get(&address.folded()),
            ForwardPath::Postmaster => None,
        }
    }

    /// Whether peers are asked for a client certificate.
    pub(crate) fn asks_certificates(&self) -> bool {
        self.asks_certificates
    }
}
