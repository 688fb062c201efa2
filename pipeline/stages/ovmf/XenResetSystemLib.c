/** @file
  Reset and shutdown of a guest of Xen: the hypervisor is asked, PC hardware or none.

  SPDX-License-Identifier: BSD-2-Clause-Patent
**/

#include <Uefi.h>
#include <Library/BaseLib.h>
#include <Library/ResetSystemLib.h>

// public/xen.h, public/sched.h
#define SCHED_OP           29
#define SCHEDOP_SHUTDOWN   2
#define SHUTDOWN_POWEROFF  0
#define SHUTDOWN_REBOOT    1

// CPUID 0, EBX: "Auth" of AMD, "Hygo" of Hygon, whose instruction is another
#define AMD    0x68747541
#define HYGON  0x6f677948

//
// The instruction itself, not Xen's page of hypercalls: an operating system has no mapping of that.
//
STATIC
VOID
AskXen (
  UINT32  Reason
  )
{
  UINT32  Vendor;
  INTN    Call;

  AsmCpuid (0, NULL, &Vendor, NULL, NULL);
  Call = SCHED_OP;
  if ((Vendor == AMD) || (Vendor == HYGON)) {
    __asm__ volatile ("vmmcall" : "+a" (Call) : "D" ((UINTN)SCHEDOP_SHUTDOWN), "S" (&Reason) : "memory");
  } else {
    __asm__ volatile ("vmcall" : "+a" (Call) : "D" ((UINTN)SCHEDOP_SHUTDOWN), "S" (&Reason) : "memory");
  }

  CpuDeadLoop ();
}

VOID
EFIAPI
ResetCold (
  VOID
  )
{
  AskXen (SHUTDOWN_REBOOT);
}

VOID
EFIAPI
ResetWarm (
  VOID
  )
{
  AskXen (SHUTDOWN_REBOOT);
}

VOID
EFIAPI
ResetShutdown (
  VOID
  )
{
  AskXen (SHUTDOWN_POWEROFF);
}

VOID
EFIAPI
ResetPlatformSpecific (
  IN UINTN  DataSize,
  IN VOID   *ResetData
  )
{
  AskXen (SHUTDOWN_REBOOT);
}

VOID
EFIAPI
ResetSystem (
  IN EFI_RESET_TYPE  ResetType,
  IN EFI_STATUS      ResetStatus,
  IN UINTN           DataSize,
  IN VOID            *ResetData OPTIONAL
  )
{
  AskXen (ResetType == EfiResetShutdown ? SHUTDOWN_POWEROFF : SHUTDOWN_REBOOT);
}
