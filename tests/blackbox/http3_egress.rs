//! HTTP/3 in, from a client that we did not write.

mod connect;
mod early_data;
mod exchanges;
mod hostile;
mod lifetime;
mod ngtcp2;
mod upgrades;

use crate::support::site::{Cloud, Edge, Site, Transport};

/// A site whose egress listener has TLS, and so HTTP/3.
async fn site(transport: Transport) -> Site {
    Site::with(cloud(), Edge::new(transport)).await
}

fn cloud() -> Cloud {
    Cloud::new().egress("tls", "{ cert: cloud.pem, key: cloud.key }")
}
