//! Buffers that are kept from call to call.

/// Values of a cache line.
const LINE: usize = 16;

/// Values that begin with a cache line, so that vectors do not lie across two.
#[derive(Debug, Default)]
pub struct Buffer {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// Zeros.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let values = vec![0.0; len + LINE - 1];
        let start = values
            .as_ptr()
            .align_offset(LINE * size_of::<f32>())
            .min(LINE - 1);
        Self { values, start, len }
    }

    /// An empty one, which allocates nothing.
    pub(crate) const fn empty() -> Self {
        Self {
            values: Vec::new(),
            start: 0,
            len: 0,
        }
    }

    /// Makes it at least `len` long. What it held is gone if it was shorter: the old one goes before the new one comes.
    pub(crate) fn grow(&mut self, len: usize) {
        if self.len < len {
            *self = Self::empty();
            *self = Self::new(len);
        }
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.len]
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.len]
    }
}
