//! A client of the API server: kube's own layers over hyper, ours between them, and a connection that notices when nobody is there any more.

use std::{sync::Arc, time::Duration};

use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client,
    client::{ClientBuilder, ConfigExt as _},
};
use tower::{BoxError, ServiceBuilder};

use super::{
    access::Access,
    meter::{Handle, Meter},
    trouble::{Reason, Trouble},
};

const CONNECT_MAX: Duration = Duration::from_secs(10);
/// A peer that is gone without a word is noticed within about a minute, though a watch may rightly be silent for longer.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// A client with settings as they are now. Must be called within a runtime.
///
/// # Errors
/// Files or certificates that are missing or wrong.
pub fn connect(access: &Access, meter: &Arc<Meter>) -> Result<Client, Trouble> {
    let wrong = |problem: String| Trouble::new(Reason::Settings, access.named(&problem));
    let config = access.open().map_err(&wrong)?;
    let wrong = |error: kube::Error| wrong(error.to_string());
    let mut http = HttpConnector::new();
    // TLS is the outer connector's.
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT_MAX));
    http.set_keepalive(Some(KEEPALIVE_AFTER));
    http.set_keepalive_interval(Some(KEEPALIVE_EVERY));
    http.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    http.set_nodelay(true);
    let connector = config.rustls_https_connector_with_connector(http).map_err(wrong)?;
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(wrong)?)
        .layer(config.extra_headers_layer().map_err(wrong)?)
        .layer(Handle(Arc::clone(meter)))
        .map_err(BoxError::from)
        .service(HttpClient::builder(TokioExecutor::new()).build(connector));
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}
