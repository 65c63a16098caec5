//! The pods whose log folders are on this node.

use std::{io, path::Path};

use fairlead_contract::namespace::Namespace;

use crate::discover::{is_container_name, list_folders, parse_pod_folder};

/// A pod's folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its containers that have a folder.
    pub containers: usize,
}

/// All pods, sorted. A folder that is not there has none.
///
/// # Errors
/// The error of reading the folder of all pods; a pod's folder that vanishes has no containers.
pub fn pods(pods_dir: &Path) -> io::Result<Vec<Pod>> {
    let folders = match list_folders(pods_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        folders => folders?,
    };
    let mut pods: Vec<Pod> = folders
        .iter()
        .filter_map(|folder| {
            let (namespace, name, uid) = parse_pod_folder(folder)?;
            let containers = list_folders(&pods_dir.join(folder)).unwrap_or_default();
            let containers = containers.iter().filter(|container| is_container_name(container)).count();
            Some(Pod { namespace, name: name.to_owned(), uid: uid.to_owned(), containers })
        })
        .collect();
    pods.sort();
    Ok(pods)
}
