use std::time::Duration;

/// Bytes that are taken apart from their beginning. Behind their end there are zeros.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    /// A number below this one.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(super) fn number(&mut self) -> u64 {
        let len = self.below(9);
        let bytes = self.bytes(len);
        bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    pub(super) fn duration(&mut self) -> Duration {
        Duration::from_micros(self.number() >> 16)
    }

    /// So many bytes, or as many as there are.
    pub(super) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// As many bytes as the next one says.
    pub(super) fn some(&mut self) -> &'a [u8] {
        let count = self.byte();
        self.bytes(count.into())
    }

    /// Text of so many bytes as the next one says.
    pub(super) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.some()).into_owned()
    }

    /// One of these.
    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// The lengths of the chunks in which bytes come, again and again.
pub(super) struct Cuts(Vec<usize>);

impl Cuts {
    pub(super) fn read(input: &mut Input<'_>) -> Self {
        let count = input.below(8);
        let lens = input.bytes(count);
        Self(lens.iter().map(|len| usize::from(*len)).collect())
    }

    /// Cuts bytes, which come in one piece where no length leads on.
    pub(super) fn of<'b>(&self, mut bytes: &'b [u8]) -> Vec<&'b [u8]> {
        if self.0.iter().all(|len| *len == 0) {
            return vec![bytes];
        }
        let mut chunks = Vec::new();
        for len in self.0.iter().cycle() {
            if bytes.is_empty() {
                break;
            }
            let (chunk, rest) = bytes.split_at((*len).min(bytes.len()));
            chunks.push(chunk);
            bytes = rest;
        }
        chunks
    }
}
