//! The brokers that scenarios run on, under one face.

use std::time::Duration;

use anyhow::Result;

use crate::component::Component;
use crate::kafka::{ApacheKafka, Shape};
use crate::tansu::Tansu;

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Apache Kafka, a JVM of its own.
    ApacheKafka,
    /// Tansu, embedded in this process.
    Tansu,
}

impl Kind {
    /// Can it run here? If not, says why it is left out (see [`Component::usable`]).
    pub fn usable(self) -> bool {
        match self {
            Kind::ApacheKafka => Component::ApacheKafka.usable(),
            Kind::Tansu => true,
        }
    }
}

/// A broker with an address and data of its own, running or not.
#[derive(Debug)]
pub enum Broker {
    /// See [`ApacheKafka`].
    ApacheKafka(ApacheKafka),
    /// See [`Tansu`].
    Tansu(Tansu),
}

impl Broker {
    /// Chooses address and folder; nothing runs yet.
    ///
    /// # Errors
    /// When the broker's programs cannot be had or its folder not made.
    pub fn prepared(kind: Kind) -> Result<Broker> {
        Ok(match kind {
            Kind::ApacheKafka => Broker::ApacheKafka(ApacheKafka::prepared()?),
            Kind::Tansu => Broker::Tansu(Tansu::prepared()?),
        })
    }

    /// An Apache Kafka of another shape than a single broker; nothing runs yet.
    ///
    /// # Errors
    /// As [`Broker::prepared`].
    pub fn shaped(shape: &Shape) -> Result<Broker> {
        Ok(Broker::ApacheKafka(ApacheKafka::prepared_as(shape)?))
    }

    /// A broker that takes records.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn started(kind: Kind) -> Result<Broker> {
        let mut broker = Broker::prepared(kind)?;
        broker.start()?;
        Ok(broker)
    }

    /// Starts it, again on the same data and address, and waits until it takes records.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(&mut self) -> Result<()> {
        match self {
            Broker::ApacheKafka(kafka) => kafka.start(),
            Broker::Tansu(tansu) => tansu.start(),
        }
    }

    /// The Apache Kafka that it is.
    ///
    /// # Panics
    /// When it is another broker.
    pub fn kafka(&mut self) -> &mut ApacheKafka {
        match self {
            Broker::ApacheKafka(kafka) => kafka,
            Broker::Tansu(_) => panic!("not an Apache Kafka"),
        }
    }

    /// Stops it in good order.
    ///
    /// # Errors
    /// When it has to be killed.
    pub fn stop(&mut self) -> Result<()> {
        match self {
            Broker::ApacheKafka(kafka) => kafka.stop(),
            Broker::Tansu(tansu) => tansu.stop(),
        }
    }

    /// Hosts and ports, user and password for a client that must have rights; `None` where nothing is asked.
    pub fn guarded(&self) -> Option<(String, &'static str, &'static str)> {
        match self {
            Broker::ApacheKafka(kafka) => kafka.guarded(),
            Broker::Tansu(_) => None,
        }
    }

    /// Host and port for the router, which may differ from those of other clients.
    pub fn entrance(&self) -> String {
        match self {
            Broker::ApacheKafka(kafka) => kafka.entrance(),
            Broker::Tansu(tansu) => tansu.bootstrap(),
        }
    }

    /// Host and port for clients.
    pub fn bootstrap(&self) -> String {
        match self {
            Broker::ApacheKafka(kafka) => kafka.bootstrap(),
            Broker::Tansu(tansu) => tansu.bootstrap(),
        }
    }
}

/// How long a broker may take to come up on a machine that is busy building.
pub(crate) const UP_WITHIN: Duration = Duration::from_secs(90);
