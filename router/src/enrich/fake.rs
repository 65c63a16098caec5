//! Stands in for the API server in tests of the worker: says what the test told it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{PodFacts, PodPath, Pods, Standing};

/// What is known of pods, by UID, under the test's control.
#[derive(Debug)]
pub struct FakePods(Mutex<Told>);

#[derive(Debug)]
struct Told {
    version: u64,
    pods: BTreeMap<String, Arc<PodFacts>>,
    standing: Standing,
    namespaces: Standing,
    asked: u64,
}

impl Default for FakePods {
    /// Nobody asks the API server.
    fn default() -> Self {
        let (standing, namespaces) = (Standing::Off, Standing::Off);
        Self(Mutex::new(Told { version: 0, pods: BTreeMap::new(), standing, namespaces, asked: 0 }))
    }
}

impl FakePods {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all about a pod.
    pub fn set(&self, uid: &str, facts: PodFacts) {
        let mut told = self.told();
        told.pods.insert(uid.to_owned(), Arc::new(facts));
        told.version += 1;
    }

    /// Knows nothing of a pod any more.
    pub fn forget(&self, uid: &str) {
        let mut told = self.told();
        told.pods.remove(uid);
        told.version += 1;
    }

    /// How often it was asked for a pod.
    pub fn asked(&self) -> u64 {
        self.told().asked
    }

    /// Changes what can be expected, of pods and of namespaces.
    pub fn stand(&self, standing: Standing) {
        let mut told = self.told();
        (told.standing, told.namespaces) = (standing, standing);
        told.version += 1;
    }

    /// Changes what can be expected of namespaces alone.
    pub fn namespaces_stand(&self, standing: Standing) {
        let mut told = self.told();
        told.namespaces = standing;
        told.version += 1;
    }
}

impl Pods for FakePods {
    fn version(&self) -> u64 {
        self.told().version
    }

    fn pod(&self, path: PodPath<'_>) -> Option<Arc<PodFacts>> {
        let mut told = self.told();
        told.asked += 1;
        told.pods.get(path.uid).cloned()
    }

    fn standing(&self) -> Standing {
        self.told().standing
    }

    fn namespaces(&self) -> Standing {
        self.told().namespaces
    }
}
