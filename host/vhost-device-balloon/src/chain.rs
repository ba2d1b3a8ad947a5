// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! What a descriptor chain carries: bytes to read, or buffers that the device may write to.

use std::ops::Deref;

use thiserror::Error;
use virtio_queue::DescriptorChain;
use vm_memory::Bytes;
use vm_memory::GuestMemoryMmap;

use crate::message::MAX_MESSAGE_SIZE;

/// Descriptors in one chain, at most.
pub const MAX_CHAIN_DESCRIPTORS: usize = 1024;

/// Why a descriptor chain is not what it should be.
#[derive(Debug, Error)]
pub enum ChainError {
    #[error("the descriptor chain is broken")]
    Broken,
    #[error("the descriptor chain has a device-writable buffer")]
    Writable,
    #[error("the descriptor chain has a device-readable buffer")]
    Readable,
    #[error("the descriptor chain has more than {MAX_CHAIN_DESCRIPTORS} descriptors")]
    TooManyDescriptors,
    #[error("the descriptor chain carries more than {MAX_MESSAGE_SIZE} bytes")]
    TooLarge,
    #[error("a buffer of the descriptor chain is outside guest memory")]
    OutsideMemory,
    #[error("the guest's memory is not known")]
    NoMemory,
}

/// A buffer in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// Guest physical address.
    pub address: u64,
    /// Length in bytes.
    pub len: u32,
}

/// Copies the device-readable buffers of `chain` to `message`, wherever the driver split them.
///
/// # Errors
///
/// [`ChainError`]; what is in `message` then is of no use.
pub fn read_message<M>(chain: DescriptorChain<M>, message: &mut Vec<u8>) -> Result<(), ChainError>
where
    M: Deref<Target = GuestMemoryMmap> + Clone,
{
    message.clear();
    let memory = chain.memory().clone();
    for_each_buffer(chain, |buffer, is_writable| {
        if is_writable {
            return Err(ChainError::Writable);
        }
        let start = message.len();
        let end = start
            .checked_add(buffer.len as usize)
            .filter(|end| *end <= MAX_MESSAGE_SIZE)
            .ok_or(ChainError::TooLarge)?;
        message.resize(end, 0);
        memory
            .read_slice(
                &mut message[start..],
                vm_memory::GuestAddress(buffer.address),
            )
            .map_err(|_| ChainError::OutsideMemory)
    })
}

/// The device-writable buffers of `chain`, none of which is touched or looked at.
///
/// # Errors
///
/// [`ChainError`]
pub fn lent_buffers<M>(chain: DescriptorChain<M>) -> Result<Vec<Buffer>, ChainError>
where
    M: Deref<Target = GuestMemoryMmap> + Clone,
{
    let mut buffers = Vec::new();
    for_each_buffer(chain, |buffer, is_writable| {
        if !is_writable {
            return Err(ChainError::Readable);
        }
        buffers.push(buffer);
        Ok(())
    })?;
    Ok(buffers)
}

fn for_each_buffer<M>(
    mut chain: DescriptorChain<M>,
    mut take: impl FnMut(Buffer, bool) -> Result<(), ChainError>,
) -> Result<(), ChainError>
where
    M: Deref<Target = GuestMemoryMmap> + Clone,
{
    let mut more = true;
    let mut count = 0;
    for descriptor in chain.by_ref() {
        count += 1;
        if count > MAX_CHAIN_DESCRIPTORS {
            return Err(ChainError::TooManyDescriptors);
        }
        let buffer = Buffer {
            address: descriptor.addr().0,
            len: descriptor.len(),
        };
        take(buffer, descriptor.is_write_only())?;
        more = descriptor.has_next();
    }
    // The chain ends in silence where it is invalid; a valid one ends at a last descriptor.
    if more {
        return Err(ChainError::Broken);
    }
    Ok(())
}
