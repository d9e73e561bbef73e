//! Pictures, and their files: bitmaps of 24 bits a pixel, which browsers show.

use phalanx::prelude::*;

/// The longest side that is decoded, in pixels: a file of a few bytes may claim any.
const LONGEST: usize = 4096;

/// The length of the head of a file.
const HEAD: usize = 54;

/// The number of planes, which is always one, and of bits a pixel, as a file has them.
const FORM: u32 = 1 | 24 << 16;

/// A picture: pixels in rows of one length, at least one.
pub(crate) struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<[u8; 3]>,
}

impl Picture {
    /// Draws one of this size, pixel by pixel.
    pub(crate) fn draw(width: usize, height: usize, pixel: impl Fn(usize, usize) -> [u8; 3]) -> Self {
        let pixels = (0..width * height).map(|at| pixel(at % width, at / width)).collect();
        Self { width, height, pixels }
    }

    /// Decodes a file.
    pub(crate) fn decode(file: &[u8]) -> Result<Self, ActionError> {
        let message = "the file is no bitmap of 24 bits a pixel";
        Self::try_decode(file).ok_or_else(|| ActionError::new(ErrorKind::InvalidInput, "no_picture", message))
    }

    fn try_decode(file: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?));
        let (start, width, height) = (number(10)? as usize, number(18)? as usize, number(22)? as usize);
        let is_known = file.starts_with(b"BM") && number(26)? == FORM && number(30)? == 0;
        if !is_known || !(1..=LONGEST).contains(&width) || !(1..=LONGEST).contains(&height) {
            return None;
        }
        let mut pixels = Vec::new();
        for row in file.get(start..)?.chunks(row_length(width)).take(height) {
            pixels.extend_from_slice(row.get(..3 * width)?.as_chunks().0);
        }
        (pixels.len() == width * height).then_some(Self { width, height, pixels })
    }

    /// Makes it smaller, until its longest side has so many pixels: each is the mean of those in its place.
    pub(crate) fn shrink(&self, side: usize) -> Self {
        let by = self.width.max(self.height).div_ceil(side);
        Self::draw(self.width.div_ceil(by), self.height.div_ceil(by), |x, y| {
            let columns = x * by..((x + 1) * by).min(self.width);
            let rows = y * by..((y + 1) * by).min(self.height);
            let count = columns.len() * rows.len();
            let mut sums = [0; 3];
            for pixel in rows.flat_map(|row| &self.pixels[row * self.width..][columns.clone()]) {
                for (sum, part) in sums.iter_mut().zip(pixel) {
                    *sum += usize::from(*part);
                }
            }
            sums.map(|sum| (sum / count) as u8)
        })
    }

    /// Its file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let length = row_length(self.width);
        let pixels = self.height * length;
        let mut file = b"BM".to_vec();
        let numbers = [HEAD + pixels, 0, HEAD, HEAD - 14, self.width, self.height];
        file.extend(numbers.iter().flat_map(|number| (*number as u32).to_le_bytes()));
        file.extend(FORM.to_le_bytes());
        file.resize(HEAD, 0);
        for row in self.pixels.chunks(self.width) {
            let start = file.len();
            file.extend_from_slice(row.as_flattened());
            file.resize(start + length, 0);
        }
        file
    }
}

/// The bytes of a row in a file.
fn row_length(width: usize) -> usize {
    (3 * width).next_multiple_of(4)
}
