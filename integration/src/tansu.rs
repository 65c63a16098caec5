//! The Tansu broker with its libsql engine, embedded in this process: the trial's broker, and the light one of tests.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tansu_broker::broker::Broker;
use tansu_broker::coordinator::group::administrator::Controller;
use tansu_storage::StorageContainer;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use url::Url;
use uuid::Uuid;

use crate::broker::UP_WITHIN;
use crate::wait::wait_for;
use crate::{admin, folders, ports};

/// An embedded broker with a port and data of its own.
#[derive(Debug)]
pub struct Tansu {
    port: u16,
    data: PathBuf,
    runtime: Option<Runtime>,
    _folder: Option<TempDir>,
}

impl Tansu {
    /// A broker in a scratch folder, on a free port. Nothing runs yet.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn prepared() -> Result<Tansu> {
        let folder = folders::scratch("tansu")?;
        let data = folder.path().to_path_buf();
        Ok(Tansu { port: ports::free_port(), data, runtime: None, _folder: Some(folder) })
    }

    /// A broker in `data`, on `port`. Nothing runs yet.
    pub fn prepared_in(data: &Path, port: u16) -> Tansu {
        Tansu { port, data: data.to_path_buf(), runtime: None, _folder: None }
    }

    /// Starts it, again on the same data and port, and waits until a record is acknowledged.
    ///
    /// # Errors
    /// When its database cannot be opened or the port is taken.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.runtime.is_none(), "Tansu runs already");
        // A runtime of its own: dropping it ends every task and closes every connection of the broker.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("tansu")
            .enable_all()
            .build()
            .context("Tansu's runtime")?;
        // Reopening the database just after it was closed fails at first with "database is locked".
        let mut last_error = None;
        let broker = wait_for("Tansu's database", Duration::from_secs(10), || {
            runtime.block_on(self.build()).map_err(|error| last_error = Some(error)).ok()
        });
        let broker = match (broker, last_error) {
            (Ok(broker), _) => broker,
            (Err(waited), error) => return Err(error.unwrap_or(waited)),
        };
        runtime.spawn(async move { broker.listen(Instant::now().into()).await });
        self.runtime = Some(runtime);
        admin::prove_ready(&self.bootstrap(), 1, UP_WITHIN).context("Tansu")
    }

    /// Ends every connection and closes the database.
    ///
    /// # Errors
    /// Never so far; the same face as Apache Kafka's.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
        Ok(())
    }

    /// Host and port for clients.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    async fn build(&self) -> Result<Broker<Controller<StorageContainer>, StorageContainer>> {
        let address = Url::parse(&format!("tcp://{}", self.bootstrap())).context("the listener")?;
        // `sqlite:///` and an absolute path: four slashes; three would make it relative to the working directory.
        let database = format!("sqlite:///{}", self.data.join("tansu.db").display());
        let mut broker = Broker::<Controller<StorageContainer>, StorageContainer>::builder()
            .node_id(1)
            .cluster_id("fairlead-embedded")
            .incarnation_id(Uuid::new_v4())
            .listener(address.clone())
            .advertised_listener(address)
            .storage(Url::parse(&database).context("the database's address")?)
            .silent(true)
            .build()
            .await
            .context("open Tansu's database")?;
        broker.register().await.context("register the broker")?;
        Ok(broker)
    }
}

impl Drop for Tansu {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
