"""Messages about searches to people and programs that do not look: webhooks, chat, mail.

Main names: `MessageProjection`, `notified`, `Message`, `receivers_of`.
"""
