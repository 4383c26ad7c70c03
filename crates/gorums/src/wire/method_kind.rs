/// How the calls of a method are answered. The caller's version of a service and the node's may
/// differ in it, so an id says in its two lowest bits which kind of answer its caller expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MethodKind {
    /// By one reply.
    TwoWay = 0,
    /// Not at all.
    OneWay = 1,
    /// By any number of replies.
    Streamed = 2,
}

impl MethodKind {
    /// How many bits of an id say this.
    const BITS: u32 = 2;

    /// The id of the call with this number, of all calls of the process.
    #[inline]
    pub(crate) fn id(self, number: u64) -> u64 {
        number << Self::BITS | self as u64
    }

    /// The number of the call with this id.
    #[inline]
    pub(crate) fn number_of(id: u64) -> u64 {
        id >> Self::BITS
    }

    /// Whether the caller with a call of this id expects this.
    #[inline]
    pub(crate) fn is_of(self, id: u64) -> bool {
        id & ((1 << Self::BITS) - 1) == self as u64
    }

    /// What the caller expects, by the id of its call; none where this version does not know.
    pub(crate) fn of_id(id: u64) -> Option<Self> {
        [Self::TwoWay, Self::OneWay, Self::Streamed]
            .into_iter()
            .find(|kind| kind.is_of(id))
    }

    /// What comes back, in words.
    pub(crate) fn answer(self) -> &'static str {
        match self {
            Self::TwoWay => "one reply",
            Self::OneWay => "no reply",
            Self::Streamed => "a stream of replies",
        }
    }
}
