"""Messages about searches to people and programs that do not look: webhooks, chat, mail.

Main names: `Notifier`, `Message`, `receivers_of`.
"""
