//! What kube-proxy does, for a lab: VIPs that belong to no interface are translated to one of their endpoints, drawn at random.
//!
//! ```no_run
//! use init::services::{Protocol, Service, rules};
//!
//! let service = Service {
//!     address: "10.201.0.1:80".parse()?,
//!     protocol: Protocol::Tcp,
//!     endpoints: vec!["10.1.0.2:8080".parse()?, "10.2.0.2:8080".parse()?],
//! };
//! // Replaces everything that an earlier call set, in one transaction, in the network namespace of this thread.
//! rules(&[service]).commit()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::net::SocketAddr;
use std::num::NonZeroU16;

pub use crate::nft::Protocol;
use crate::nft::{Batch, Chain, Expression, Family, Hook};

/// The table that holds the translations.
pub const TABLE: &str = "isthmus-services";
const CHAIN: &str = "services";
/// Where destination NAT has its place, before any filter.
const PRIORITY: i32 = -100;

/// A VIP and where its connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The VIP and its port.
    pub address: SocketAddr,
    /// TCP or UDP; a Service with both is two of these.
    pub protocol: Protocol,
    /// Endpoints of the VIP's family; those of the other family are left out. Without any, connections are refused.
    pub endpoints: Vec<SocketAddr>,
}

/// The whole table for these services: for packets that arrive from pods (prerouting) and for those made here (output).
///
/// A pod that dials a VIP and draws itself gets no answer: nothing masquerades that case.
#[must_use]
pub fn rules(services: &[Service]) -> Batch {
    let mut batch = Batch::new(TABLE);
    batch.replace_table();
    batch.chain(&Chain::regular(CHAIN));
    for service in services {
        add(&mut batch, service);
    }
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        batch.chain(&Chain::nat(name, hook, PRIORITY));
        batch.rule(name, "jump", &[Expression::Jump(CHAIN)]);
    }
    batch
}

fn add(batch: &mut Batch, service: &Service) {
    let Some(port) = NonZeroU16::new(service.address.port()) else { return };
    let family = Family::of(service.address.ip());
    let name = service.address.to_string();
    let matched = [
        Expression::Family(family),
        Expression::Protocol(service.protocol),
        Expression::DestinationIs(service.address.ip()),
        Expression::PortIs(port),
    ];
    let endpoints: Vec<_> = service.endpoints.iter().filter(|endpoint| Family::of(endpoint.ip()) == family).collect();
    for (index, endpoint) in endpoints.iter().enumerate() {
        // The first of n takes one in n, the second one in n - 1 of the rest, the last all that is left: equal shares.
        let left = u32::try_from(endpoints.len() - index).unwrap_or(u32::MAX);
        let drawn = (left > 1).then_some(Expression::OneIn(left));
        let to = Expression::DestinationNat(**endpoint);
        let rule: Vec<_> = matched.iter().cloned().chain(drawn).chain([to]).collect();
        batch.rule(CHAIN, &name, &rule);
    }
    if endpoints.is_empty() {
        let answer = match service.protocol {
            Protocol::Tcp => Expression::RejectWithReset,
            Protocol::Udp => Expression::RejectWithUnreachable,
        };
        let rule: Vec<_> = matched.into_iter().chain([answer]).collect();
        batch.rule(CHAIN, &name, &rule);
    }
}
