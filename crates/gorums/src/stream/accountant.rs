use crate::handler::Request;

/// Counts the bytes of the requests of one stream that wait for their handlers, and decides when
/// reading pauses.
///
/// A request is a slice of the chunk that it came in, and keeps the whole chunk alive until its
/// handler starts. A peer may put one small request into each large chunk, so what a kept chunk has
/// besides its requests counts as well, with the request that comes next.
#[derive(Debug)]
pub(crate) struct Accountant {
    /// Reading pauses at so many bytes, and goes on at half of them.
    limit: usize,
    /// What the lane had when it was last asked.
    at_the_lane: usize,
    /// What was read since and not handed to the lane.
    read: usize,
    /// How much of the current chunk is in no request so far.
    chunk_rest: usize,
    /// Whether a request keeps the current chunk.
    chunk_is_kept: bool,
    /// The rests of earlier chunks that are kept and not counted yet.
    carried: usize,
    is_paused: bool,
}

impl Accountant {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            at_the_lane: 0,
            read: 0,
            chunk_rest: 0,
            chunk_is_kept: false,
            carried: 0,
            is_paused: false,
        }
    }

    /// A chunk of so many bytes is read next.
    #[inline]
    pub(crate) fn begin_chunk(&mut self, len: usize) {
        if std::mem::take(&mut self.chunk_is_kept) {
            self.carried += self.chunk_rest;
        }
        self.chunk_rest = len;
    }

    /// The current chunk has a request. From now on it costs what it keeps.
    #[inline]
    pub(crate) fn count(&mut self, request: &mut Request) {
        self.chunk_rest = self.chunk_rest.saturating_sub(request.size);
        self.chunk_is_kept = true;
        request.size += std::mem::take(&mut self.carried);
        self.read += request.cost();
    }

    /// The lane has requests that cost so much, and everything that was read is among them.
    #[inline]
    pub(crate) fn handed_over(&mut self, at_the_lane: usize) {
        self.at_the_lane = at_the_lane;
        self.read = 0;
    }

    /// The lane has requests that cost so much; what was read is still here.
    #[inline]
    pub(crate) fn lane_has(&mut self, at_the_lane: usize) {
        self.at_the_lane = at_the_lane;
    }

    /// What waits altogether.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        self.at_the_lane + self.read
    }

    /// Whether so much waits that reading should pause. Once it does, half of it has to go first.
    #[inline]
    pub(crate) fn is_full(&mut self) -> bool {
        self.is_paused = if self.is_paused {
            self.waiting() > self.low()
        } else {
            self.waiting() >= self.limit
        };
        self.is_paused
    }

    /// Whether reading paused when that was last asked.
    #[inline]
    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Reading goes on when no more than this waits.
    #[inline]
    pub(crate) fn low(&self) -> usize {
        self.limit / 2
    }
}
