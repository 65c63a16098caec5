//! A line of figures: on a terminal it is kept up to date in place, elsewhere it is printed now and then.

use std::io::{IsTerminal as _, Write};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::metrics::sum;
use crate::process::Program;

/// What the programs call the figures.
const READ: &str = "fairlead_router_lines_read_total";
const ACKNOWLEDGED: &str = "fairlead_router_lines_acknowledged_total";
const SERVED: &str = "fairlead_gateway_lines_sent_total";

pub(super) struct Status {
    terminal: bool,
    shown: bool,
}

impl Status {
    pub(super) fn new() -> Status {
        Status { terminal: std::io::stdout().is_terminal(), shown: false }
    }

    pub(super) fn every(&self) -> Duration {
        if self.terminal { Duration::from_secs(1) } else { Duration::from_secs(10) }
    }

    pub(super) fn print(
        &mut self,
        out: &mut impl Write,
        written: Option<u64>,
        router: &Program,
        gateway: &Program,
    ) -> Result<()> {
        let page = |program: &Program| program.admin().get("/metrics").map(|answer| answer.body).unwrap_or_default();
        let (routed, served) = (page(router), page(gateway));
        let written = written.map(|lines| format!("written {lines}  ")).unwrap_or_default();
        let figures = format!(
            "{written}read {:.0}  acknowledged {:.0}  served {:.0}",
            sum(&routed, READ),
            sum(&routed, ACKNOWLEDGED),
            sum(&served, SERVED)
        );
        self.shown = true;
        // On a terminal: back to the line's beginning, and clear to its end.
        let printed = if self.terminal { write!(out, "\r{figures}\x1b[K") } else { writeln!(out, "{figures}") };
        printed.and_then(|()| out.flush()).context("print")
    }

    pub(super) fn finish(&self, out: &mut impl Write) -> Result<()> {
        if self.terminal && self.shown { writeln!(out).context("print") } else { Ok(()) }
    }
}
