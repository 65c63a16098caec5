//! How the API server is reached: the service account of this pod, or a kubeconfig file.
//!
//! Looked at when settings are read, so that what is missing is said at once and by its name; opened again for every connection, so that whatever
//! was replaced (a token, a certificate, an authority, an address) is used without a restart.

use std::{env, fmt, fs, path::Path, path::PathBuf};

use fairlead_service_kit::config_source::os_words;
use kube::{
    Config,
    client::ConfigExt as _,
    config::{Kubeconfig, KubeconfigError},
};

/// Where Kubernetes puts a pod's service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const ACCOUNT_FILES: [&str; 3] = ["token", "ca.crt", "namespace"];
const ADDRESS: [&str; 2] = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"];
/// The longest kubeconfig file that is read.
const KUBECONFIG_BYTES_MAX: u64 = 1 << 20;

/// How the API server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// As every pod can: its address from the environment, its authority and our token from the service account's folder.
    ServiceAccount,
    /// As a kubeconfig file says, with its current context.
    Kubeconfig(PathBuf),
}

impl Access {
    /// The settings of a connection, read anew from files.
    ///
    /// # Errors
    /// What is missing or wrong, in words and by its name. Never what a file contains.
    pub fn open(&self) -> Result<Config, String> {
        match self {
            Access::ServiceAccount => service_account(),
            Access::Kubeconfig(path) => kubeconfig(path),
        }
    }

    /// As [`Access::open`]; also judges certificates, keys and token files, without making a request or running what a kubeconfig names.
    ///
    /// # Errors
    /// The same.
    pub fn check(&self) -> Result<(), String> {
        let config = self.open()?;
        if let Some(file) = config.auth_info.token_file.as_deref().filter(|_| config.auth_info.token.is_none()) {
            let token = fs::read_to_string(file).map_err(|error| format!("{file}: {}", os_words(&error)))?;
            if token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Err(format!(
                    "{file} holds more than a token, or none: a newline at its end is one character too many"
                ));
            }
        }
        if config.auth_info.exec.is_none() && config.auth_info.auth_provider.is_none() {
            let tls = config.rustls_client_config().map_err(|error| error.to_string());
            tls.map_err(|problem| match self {
                Access::ServiceAccount => format!("{ACCOUNT}/ca.crt: {problem}"),
                Access::Kubeconfig(_) => problem,
            })?;
            config.auth_layer().map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

impl Access {
    /// A problem with the name of what it is a problem of.
    pub fn named(&self, problem: &str) -> String {
        match self {
            Access::ServiceAccount => problem.to_owned(),
            Access::Kubeconfig(path) => format!("{}: {problem}", path.display()),
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.open() {
            Ok(config) => write!(f, "{}", config.cluster_url)?,
            Err(_) => f.write_str("an unknown address")?,
        }
        match self {
            Access::ServiceAccount => f.write_str(" by this pod's service account"),
            Access::Kubeconfig(path) => write!(f, " by {}", path.display()),
        }
    }
}

fn service_account() -> Result<Config, String> {
    const WHAT: &str = "needs kubernetes.kubeconfig_file, or a pod with a service account";
    if let Some(missing) = ADDRESS.iter().find(|name| env::var_os(name).is_none_or(|value| value.is_empty())) {
        return Err(format!("{WHAT}: {missing} is not in the environment"));
    }
    for file in ACCOUNT_FILES {
        let path = Path::new(ACCOUNT).join(file);
        fs::File::open(&path).map_err(|error| format!("{WHAT}: {}: {}", path.display(), os_words(&error)))?;
    }
    Config::incluster_env().map_err(|error| format!("{WHAT}: {error}"))
}

fn kubeconfig(path: &Path) -> Result<Config, String> {
    let metadata = fs::File::open(path).and_then(|file| file.metadata());
    match metadata {
        Err(error) => return Err(format!("cannot be read: {}", os_words(&error))),
        Ok(metadata) if !metadata.is_file() => return Err("is no file".to_owned()),
        Ok(metadata) if metadata.len() > KUBECONFIG_BYTES_MAX => return Err("has more than 1MiB".to_owned()),
        Ok(_) => {}
    }
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| in_words(&error))?;
    let says_proxy = |kubeconfig: &Kubeconfig| {
        let mut clusters = kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref());
        clusters.any(|cluster| cluster.proxy_url.as_deref().is_some_and(|url| !url.is_empty()))
    };
    if says_proxy(&kubeconfig) {
        return Err("says proxy-url: the API server is reached directly or not at all".to_owned());
    }
    let mut config = Config::try_from(kubeconfig).map_err(|error| in_words(&error))?;
    // What the environment says of proxies is meant for other destinations.
    config.proxy_url = None;
    if config.cluster_url.host().is_none() {
        return Err(format!("names {} as the server, which is no address", config.cluster_url));
    }
    Ok(config)
}

/// A parser's message may show what it could not parse, and a kubeconfig holds tokens and keys.
fn in_words(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(_) => "is no kubeconfig: its YAML cannot be used".to_owned(),
        error => error.to_string(),
    }
}
