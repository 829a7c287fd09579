//! Ports of the host that lead to guests. An exposure belongs to a VM's record and takes effect
//! while its machine is up; its host port is set aside for as long as the record is there.

use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::{Exposure, InvalidSpec, NetworkMode, NewVm, VmName};
use crate::net::{EXPOSED_MAX, Forward, Reservation, reserve};
use crate::orchestrator::{Error, Orchestrator, Shared, chain};

/// The exposures of one VM.
#[derive(Debug, Default)]
pub struct Exposures(Mutex<Vec<Exposed>>);

#[derive(Debug)]
struct Exposed {
    exposure: Exposure,
    /// None where another program has taken the port while the daemon was down: it keeps it.
    reservation: Option<Reservation>,
}

impl Exposures {
    fn lock(&self) -> MutexGuard<'_, Vec<Exposed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all(&self) -> Vec<Exposure> {
        self.lock().iter().map(|exposed| exposed.exposure).collect()
    }

    /// Those whose port of the host is ours. One that was another's may have become free.
    fn in_effect(&self) -> Vec<Exposure> {
        let mut all = self.lock();
        for Exposed { exposure, reservation } in all.iter_mut() {
            let Exposure { transport, host_ip, host_port, .. } = *exposure;
            if reservation.is_none() {
                *reservation = reserve(transport, host_ip, host_port).ok();
            }
        }
        let ours = all.iter().filter(|exposed| exposed.reservation.is_some());
        ours.map(|exposed| exposed.exposure).collect()
    }
}

/// Whether two exposures would want the same packets.
fn collide(one: &Exposure, two: &Exposure) -> bool {
    let any = one.host_ip.is_unspecified() || two.host_ip.is_unspecified();
    one.transport == two.transport
        && one.host_port == two.host_port
        && (any || one.host_ip == two.host_ip)
}

impl Shared {
    /// Sets the host's port for `wanted` aside. Called while `exposing` is held; `more` are set aside
    /// already, and are no VM's yet.
    fn set_aside(&self, wanted: Exposure, more: &[Exposed]) -> Result<Exposed, Error> {
        let mut all: Vec<Exposure> =
            self.handles().iter().flat_map(|handle| handle.exposures.all()).collect();
        all.extend(more.iter().map(|exposed| exposed.exposure));
        if EXPOSED_MAX <= all.len() {
            return Err(Error::NoExposure);
        }
        let taken = Error::PortTaken { port: wanted.host_port };
        if all.iter().any(|other| collide(other, &wanted)) {
            return Err(taken);
        }
        let reservation = reserve(wanted.transport, wanted.host_ip, wanted.host_port);
        let reservation = reservation.map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse | std::io::ErrorKind::PermissionDenied => taken,
            _ => Error::NoSuchAddress(wanted.host_ip),
        })?;
        let exposure = Exposure { host_port: reservation.port, ..wanted };
        Ok(Exposed { exposure, reservation: Some(reservation) })
    }

    /// Sets aside what a VM is to be created with, all or nothing, and writes the ports that it got
    /// into `new`. Called while `exposing` is held.
    ///
    /// # Errors
    /// As of [`Orchestrator::expose`].
    pub(super) fn set_aside_for(&self, new: &mut NewVm) -> Result<Exposures, Error> {
        if !new.exposures.is_empty() {
            needs_card(new.spec.network)?;
        }
        let mut all = Vec::new();
        for wanted in &mut new.exposures {
            let exposed = self.set_aside(*wanted, &all)?;
            *wanted = exposed.exposure;
            all.push(exposed);
        }
        Ok(Exposures(Mutex::new(all)))
    }

    /// Brings the firewall to what is exposed now. Called whenever a machine comes up or goes.
    pub(super) fn refresh_forwards(&self) {
        // ORDER: held while the rules are computed and set, so that the last change wins.
        let mut last = self.forwards.lock().unwrap_or_else(PoisonError::into_inner);
        let mut forwards = Vec::new();
        for handle in self.handles() {
            let guest_ip: Ipv4Addr = handle.vm.borrow().ip;
            if handle.parts().vsock.is_some() {
                let ours = handle.exposures.in_effect().into_iter();
                forwards.extend(ours.map(|exposure| Forward { exposure, guest_ip }));
            }
        }
        if *last == forwards {
            return;
        }
        match self.network.set_forwards(&forwards) {
            Ok(()) => *last = forwards,
            Err(error) => tracing::error!(error = chain(&error), "exposed ports are not in effect"),
        }
    }
}

impl Orchestrator {
    /// Sets aside again what was exposed before.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) async fn load_exposures(&self) -> Result<(), Error> {
        let stored = self.shared.store.list_exposures().await?;
        for handle in self.shared.handles() {
            let id = handle.vm.borrow().id;
            for (_, exposure) in stored.iter().filter(|(vm, _)| *vm == id) {
                let Exposure { transport, host_ip, host_port, .. } = *exposure;
                let reservation = reserve(transport, host_ip, host_port);
                if let Err(error) = &reservation {
                    tracing::warn!(vm = %id, port = host_port, %error, "an exposed port is taken");
                }
                let exposed = Exposed { exposure: *exposure, reservation: reservation.ok() };
                handle.exposures.lock().push(exposed);
            }
        }
        Ok(())
    }

    /// The ports of a VM that are exposed.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn exposures(&self, name: &VmName) -> Result<Vec<Exposure>, Error> {
        Ok(self.find(name)?.exposures.all())
    }

    /// Exposes a port of a VM; a host port of 0 asks for any that is free. What is returned has the
    /// port that it got.
    ///
    /// # Errors
    /// Conflict when the host's port is taken, by another VM or another program.
    pub async fn expose(&self, name: &VmName, wanted: Exposure) -> Result<Exposure, Error> {
        let handle = self.find(name)?;
        let (id, network) = {
            let vm = handle.vm.borrow();
            (vm.id, vm.spec.network)
        };
        needs_card(network)?;
        // One at a time, so that none comes between the look and the change.
        let _one = self.shared.exposing.lock().await;
        let exposed = self.shared.set_aside(wanted, &[])?;
        let exposure = exposed.exposure;
        self.shared.store.add_exposure(id, exposure).await?;
        handle.exposures.lock().push(exposed);
        self.shared.refresh_forwards();
        Ok(exposure)
    }

    /// Ends an exposure.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn unexpose(&self, name: &VmName, exposure: Exposure) -> Result<(), Error> {
        let handle = self.find(name)?;
        let id = handle.vm.borrow().id;
        self.shared.store.remove_exposure(id, exposure).await?;
        handle.exposures.lock().retain(|exposed| exposed.exposure != exposure);
        self.shared.refresh_forwards();
        Ok(())
    }
}

/// Only what has an address on the bridge can be led to.
fn needs_card(network: NetworkMode) -> Result<(), InvalidSpec> {
    let reason = || "a VM without a network card has no address to lead to".to_owned();
    match network.has_card() {
        true => Ok(()),
        false => Err(InvalidSpec { field: "expose", reason: reason() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Transport;

    #[test]
    fn exposures_collide_by_transport_port_and_address() {
        let on = |transport, ip: [u8; 4], host_port| Exposure {
            transport,
            host_ip: ip.into(),
            host_port,
            guest_port: 80,
        };
        let any = on(Transport::Tcp, [0; 4], 8080);
        assert!(collide(&any, &on(Transport::Tcp, [127, 0, 0, 1], 8080)));
        assert!(!collide(&any, &on(Transport::Udp, [0; 4], 8080)));
        assert!(!collide(&any, &on(Transport::Tcp, [0; 4], 8081)));
        let one = on(Transport::Tcp, [127, 0, 0, 1], 8080);
        assert!(!collide(&one, &on(Transport::Tcp, [10, 0, 0, 1], 8080)));
        assert!(collide(&one, &one));
    }
}
