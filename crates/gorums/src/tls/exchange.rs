use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::error::TlsError;
use super::material::{Material, Rules};
use super::sources::{Contents, Sources};
use crate::log;
use crate::runtime::{BoxFuture, Clock};
use crate::sync::Mutex;

/// What all clones of a [`Tls`](super::Tls) have in common: the certificates, which are exchanged
/// all together or not at all.
pub(super) struct Exchange {
    present: watch::Sender<Arc<Material>>,
    /// Whoever exchanges something holds this meanwhile, also while files are read.
    given: Mutex<Given>,
    rules: Rules,
    watcher: Option<Watcher>,
}

/// What the present material was made of.
struct Given {
    sources: Sources,
    contents: Contents,
}

/// Looks at the files again and again.
struct Watcher {
    /// Makes the task that does, for what it is to look after.
    watch: Box<dyn Fn(Weak<Exchange>) -> BoxFuture<'static, ()> + Send + Sync>,
    task: Mutex<Option<AbortHandle>>,
}

/// Something was exchanged.
pub(super) struct Exchanged {
    before: Arc<Material>,
    now: Arc<Material>,
}

/// What a look at the sources has shown.
pub(super) enum Look {
    /// They are as they were.
    Same,
    /// They are different, and may not be written to their end.
    Different(Seen),
    Exchanged(Exchanged),
    /// They have been like this for two looks, and cannot be used.
    Refused(Seen, String),
}

/// What was read, or why it could not be.
pub(super) type Seen = Result<Contents, String>;

impl Exchange {
    /// Reads the sources.
    pub(super) fn new(sources: Sources, rules: Rules) -> Result<Self, TlsError> {
        let contents = sources.read()?;
        let material = Arc::new(Material::of(&sources, &contents, None, &rules)?);
        tell_outdated(&material, &*rules.clock);
        Ok(Self {
            present: watch::Sender::new(material),
            given: Mutex::new(Given { sources, contents }),
            rules,
            watcher: None,
        })
    }

    /// With a task, made by this, that looks at the sources again and again.
    pub(super) fn watched(
        mut self,
        watch: impl Fn(Weak<Self>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        self.watcher = Some(Watcher {
            watch: Box::new(watch),
            task: Mutex::default(),
        });
        self
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.rules.clock
    }

    pub(super) fn is_watched(&self) -> bool {
        self.watcher.is_some()
    }

    /// What new connections are made with.
    pub(super) fn present(&self) -> Arc<Material> {
        Arc::clone(&self.present.borrow())
    }

    /// The same, and what follows it.
    pub(super) fn follow(&self) -> watch::Receiver<Arc<Material>> {
        self.present.subscribe()
    }

    /// Starts to look at the sources, where that is wanted and nobody does: in the present runtime,
    /// if there is one.
    pub(super) fn keep_watch(self: &Arc<Self>) {
        let Some(watcher) = &self.watcher else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut task = watcher.task.lock();
        // It ends with its runtime, which may have been another one.
        if task.as_ref().is_none_or(AbortHandle::is_finished)
            && self.rules.clock.check_runtime().is_ok()
        {
            let watching = runtime.spawn((watcher.watch)(Arc::downgrade(self)));
            *task = Some(watching.abort_handle());
        }
    }

    /// Takes over what is in these sources, made of the present ones. None where it is what was there.
    pub(super) fn take(
        &self,
        sources: impl FnOnce(Sources) -> Sources,
    ) -> Result<Option<Exchanged>, TlsError> {
        let mut given = self.given.lock();
        let sources = sources(given.sources.clone());
        let contents = sources.read()?;
        if contents == given.contents {
            given.sources = sources;
            return Ok(None);
        }
        let material = Material::of(&sources, &contents, Some(&given.contents), &self.rules)?;
        Ok(Some(self.put(&mut given, sources, contents, material)))
    }

    /// Reads the sources, and takes over what is different where the last look has seen the same:
    /// files may be written meanwhile, one after the other.
    pub(super) fn look(&self, before: Option<&Seen>) -> Look {
        let mut given = self.given.lock();
        let seen = given.sources.read().map_err(|error| error.to_string());
        if seen.as_ref() == Ok(&given.contents) {
            return Look::Same;
        }
        if before != Some(&seen) {
            return Look::Different(seen);
        }
        let contents = match &seen {
            Ok(contents) => contents.clone(),
            Err(reason) => {
                let reason = reason.clone();
                return Look::Refused(seen, reason);
            }
        };
        match Material::of(
            &given.sources,
            &contents,
            Some(&given.contents),
            &self.rules,
        ) {
            Ok(material) => {
                let sources = given.sources.clone();
                Look::Exchanged(self.put(&mut given, sources, contents, material))
            }
            Err(error) => Look::Refused(seen, error.to_string()),
        }
    }

    fn put(
        &self,
        given: &mut Given,
        sources: Sources,
        contents: Contents,
        material: Material,
    ) -> Exchanged {
        *given = Given { sources, contents };
        let now = Arc::new(material);
        let before = self.present.send_replace(Arc::clone(&now));
        Exchanged { before, now }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(task) = self
            .watcher
            .as_mut()
            .and_then(|own| own.task.get_mut().take())
        {
            task.abort();
        }
    }
}

impl Exchanged {
    pub(super) fn tell(&self, clock: &dyn Clock) {
        let (before, now) = (&self.before, &self.now);
        let revoked = |material: &Material| -> usize {
            material.lists().iter().map(|list| list.revoked).sum()
        };
        tracing::info!(
            target: log::TLS,
            identity = now.identity().map(log::text).map(tracing::field::display),
            identity_before = before
                .identity()
                .filter(|identity| now.identity() != Some(identity))
                .map(log::text)
                .map(tracing::field::display),
            authorities = now.authorities(),
            authorities_before = before.authorities(),
            revoked = revoked(now),
            revoked_before = revoked(before),
            "certificates were exchanged"
        );
        tell_outdated(now, clock);
        tell_expired(now, clock);
    }
}

/// A list that is too old is used all the same: what it has is revoked for good.
pub(super) fn tell_outdated(material: &Material, clock: &dyn Clock) {
    let now = clock.wall_clock();
    for list in material.lists() {
        if let Some(since) = list.outdated_since(now) {
            tracing::warn!(
                target: log::TLS,
                place = %log::text(&list.place),
                authority = %log::text(&list.authority),
                %since,
                "a revocation list is out of date, and stays in use: there should be a newer one"
            );
        }
    }
}

/// Peers do not take what this process shows any more.
pub(super) fn tell_expired(material: &Material, clock: &dyn Clock) {
    if let Some(identity) = material.identity()
        && material.has_expired(clock.wall_clock())
    {
        tracing::warn!(
            target: log::TLS,
            identity = %log::text(identity),
            "the certificate of this process has expired, and peers refuse it"
        );
    }
}

/// Files are not taken over.
pub(super) fn tell_refused(material: &Material, reason: &str, is_told: bool) {
    log::event!(
        is_told => warn or debug,
        target: log::TLS,
        error = %log::text(reason),
        in_use = material.identity().map(log::text).map(tracing::field::display),
        authorities = material.authorities(),
        "certificates were not exchanged: those before stay in use"
    );
}

/// A look at the sources has panicked, by the clock that was given perhaps. Each one that does is told:
/// it is a mistake in a program, and whatever it would have shown is not taken over.
pub(super) fn tell_panicked() {
    tracing::error!(
        target: log::TLS,
        "a look at certificates has panicked: those before stay in use, and are looked at again"
    );
}

/// Says something again after a while, where it still holds.
#[derive(Default)]
pub(super) struct Reminder {
    last: Option<(String, Instant)>,
}

impl Reminder {
    /// How long nothing is said of what was said.
    pub(super) const PAUSE: std::time::Duration = std::time::Duration::from_secs(60 * 60);

    /// Whether this is said now.
    pub(super) fn is_due(&mut self, text: &str, now: Instant) -> bool {
        if let Some((last, at)) = &self.last
            && last == text
            && now.saturating_duration_since(*at) < Self::PAUSE
        {
            return false;
        }
        self.last = Some((text.to_owned(), now));
        true
    }

    /// It does not hold any more.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }
}
