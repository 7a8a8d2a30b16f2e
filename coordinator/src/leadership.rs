//! Whether this coordinator leads: always, when it is the only one; else while it holds the leader's lease in etcd.

#[cfg(feature = "etcd")]
mod elected;
#[cfg(all(test, feature = "etcd"))]
mod tests;

use std::sync::Arc;

use tokio::sync::watch;

use crate::store::redb::Redb;
use crate::store::{Store, StoreError};

/// What a coordinator is for now.
#[derive(Clone, Debug)]
pub enum Role {
    /// It decides, and this store takes its word for as long as it does.
    Leading(Arc<dyn Store>),
    /// Another one decides, at this URL if it is known.
    Standby {
        /// The URL that the leader advertises.
        leader: Option<String>,
    },
}

/// A coordinator's seat among the coordinators.
#[derive(Debug)]
pub struct Seat {
    roles: watch::Receiver<Role>,
    how: How,
}

#[derive(Debug)]
enum How {
    /// The only one: its role never changes.
    Alone(#[expect(dead_code, reason = "kept, so that the role's channel stays open")] watch::Sender<Role>),
    #[cfg(feature = "etcd")]
    Elected(elected::Handle),
}

impl Seat {
    /// Of the only coordinator.
    #[must_use]
    pub fn alone(store: Redb) -> Self {
        let (alone, roles) = watch::channel(Role::Leading(Arc::new(store)));
        Self {
            roles,
            how: How::Alone(alone),
        }
    }

    /// Of one among several, which finds out by itself whether it leads; `url` is where the others find it.
    ///
    /// # Errors
    /// When the options cannot be used. The cluster need not be there yet.
    #[cfg(feature = "etcd")]
    pub async fn elected(options: &crate::store::etcd::Options, url: String) -> Result<Self, StoreError> {
        let (handle, roles) = elected::start(options, url).await?;
        let how = How::Elected(handle);
        Ok(Self { roles, how })
    }

    /// What this coordinator is now.
    #[must_use]
    pub fn role(&mut self) -> Role {
        self.roles.borrow_and_update().clone()
    }

    /// Waits until it is something else than [`Seat::role`] said last.
    pub async fn changed(&mut self) {
        if self.roles.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The store knows another leader: waits until this one has stepped down.
    ///
    /// # Errors
    /// When there cannot be another one.
    pub async fn deposed(&mut self, error: StoreError) -> Result<(), StoreError> {
        match &self.how {
            How::Alone(_) => Err(error),
            #[cfg(feature = "etcd")]
            How::Elected(handle) => {
                handle.deposed(&error).await;
                self.changed().await;
                Ok(())
            }
        }
    }

    /// Gives the seat up at once, for the next one not to wait.
    pub async fn leave(self) {
        match self.how {
            How::Alone(_) => {}
            #[cfg(feature = "etcd")]
            How::Elected(handle) => handle.leave().await,
        }
    }
}
