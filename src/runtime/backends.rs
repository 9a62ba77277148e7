//! What stands behind endpoint ENIs: a task for each connection, which asks the services to open it and serves it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::AbortHandle;

use super::bridge::{BridgeGauges, TaskCount};
use super::tables::Tables;
use super::terminal::{Backends, Ticket};
use crate::base::{EniIx, FiveTuple};
use crate::host::client::KeeperClient;
use crate::host::cmd::DialAddr;
use crate::model::plan::UpstreamAddr;
use crate::services::{ConnContext, Dialer, Opened, Services, Stream};

/// How long the keeper may take to connect to a server of this machine. The stack gives up on its own before.
const DIAL_PATIENCE: Duration = Duration::from_secs(10);

pub struct ServiceBackends {
    services: Arc<Services>,
    tokio: tokio::runtime::Handle,
    gauges: Arc<BridgeGauges>,
}

impl ServiceBackends {
    pub fn new(services: Arc<Services>, tokio: tokio::runtime::Handle, gauges: Arc<BridgeGauges>) -> ServiceBackends {
        ServiceBackends { services, tokio, gauges }
    }
}

impl Backends for ServiceBackends {
    fn open(&mut self, tables: &Tables, eni: EniIx, tuple: FiveTuple, ticket: Ticket) -> AbortHandle {
        let found = ConnContext::at(&tables.plan, eni, tuple);
        let services = self.services.clone();
        let count = TaskCount::new(&self.gauges);
        let task = self.tokio.spawn(async move {
            let Some(context) = found else { return ticket.refused() };
            match services.open(context).await {
                Opened::Refused => ticket.refused(),
                Opened::Silent => ticket.silent(),
                Opened::Ready(session) => {
                    if let Some(stream) = ticket.connected().await {
                        let guard = stream.guard();
                        if session.is_raw() {
                            stream.expire_untold();
                        }
                        session.serve(stream, || guard.abort()).await;
                    }
                }
            }
            drop(count);
        });
        task.abort_handle()
    }
}

/// Connects to upstreams on this machine through the keeper: the router process has no network.
pub struct KeeperDialer {
    keeper: KeeperClient,
}

impl KeeperDialer {
    pub fn new(keeper: KeeperClient) -> KeeperDialer {
        KeeperDialer { keeper }
    }
}

impl Dialer for KeeperDialer {
    fn dial(&self, addr: &UpstreamAddr) -> BoxFuture<'static, io::Result<Box<dyn Stream>>> {
        let (keeper, addr) = (self.keeper.clone(), DialAddr::from(addr));
        Box::pin(async move {
            let fd = keeper.dial(addr.clone(), DIAL_PATIENCE).await?;
            let stream: Box<dyn Stream> = match addr {
                DialAddr::Tcp(_) => {
                    let stream = tokio::net::TcpStream::from_std(fd.into())?;
                    stream.set_nodelay(true)?;
                    Box::new(stream)
                }
                DialAddr::Unix(_) => Box::new(tokio::net::UnixStream::from_std(fd.into())?),
            };
            Ok(stream)
        })
    }
}
